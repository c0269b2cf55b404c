"""What runs on the device: Python 3.8 to 3.14, the standard library, numpy, and whatever runtime is found there."""
