"""What a recipe leaves open, and the recipes that it stands for."""
