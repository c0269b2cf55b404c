"""What strategies have in common: their contract, the samplers of Optuna and the strategies of NNI."""
