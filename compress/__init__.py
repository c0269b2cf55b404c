"""Compress a trained segmentation network, build it for its device, and prove what it cost."""

__version__ = "0.1.0"
