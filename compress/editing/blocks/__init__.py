"""Stretches of a trained network, small blocks that answer as they do, what each costs, and the choice."""
