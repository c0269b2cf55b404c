"""Layers in one bit: which take it, and how they begin."""
