"""What objectives have in common: their contract, and their options."""
