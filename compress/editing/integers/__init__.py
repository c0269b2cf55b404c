"""What makes integers cost less than rounding a trained network to the nearest ones."""
