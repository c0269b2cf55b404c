"""What nnU-Net's plans say is done to an image before and after its network, done the same."""
