"""One file a door: the networks that a state dict may be of, by its names and shapes, the likeliest first."""
