"""Recipes with choices, tried one after the other: what to try next, what it gives, and which are on the front."""
