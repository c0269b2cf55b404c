"""Networks in 16-bit floating point: which tensors can be, which cannot and why, and the graph with types and casts."""
