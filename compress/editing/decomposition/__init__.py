"""Layers as products of thinner ones: what the `lowrank` pass is made of."""
