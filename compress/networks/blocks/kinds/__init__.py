"""Kinds of small blocks that take the place of stretches of a trained network; a recipe's word is the file's name."""
