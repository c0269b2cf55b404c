"""What strategies have in common: their contract, and the samplers of Optuna."""
