"""Which channels belong together, which the others can stand in for, and how they are taken out."""
