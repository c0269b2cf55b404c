"""How a trained network is changed: layers replaced, fitted to what they saw, or put back to float."""
