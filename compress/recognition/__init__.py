"""What somebody's files are: the network of a checkpoint, the classes of masks, the input that a network wants."""
