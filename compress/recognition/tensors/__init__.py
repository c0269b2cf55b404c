"""The names and shapes in a checkpoint, which the doors read."""
