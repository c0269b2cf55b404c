"""What proposes the next recipe of a search: one way a file, the word of the recipe its name."""
