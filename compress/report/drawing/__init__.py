"""The report's drawings, one kind a file, and the look that they share."""
