"""What is measured: scores of a segmentation, latency, the host, and what a network costs to compute."""
