"""An artifact opened by its runtime, here or on a device: with Python 3.8, numpy and that runtime alone."""
