"""What a search looks for: one number of a trial a file, the word of the recipe its name."""
