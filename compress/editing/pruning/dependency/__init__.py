"""Which channels of a network belong together: the dependency graph of its channels."""
