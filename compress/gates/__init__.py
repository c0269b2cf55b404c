"""What may be demanded of a result, and what may honestly be said of whether it holds."""
