"""One pass a file; a recipe's word is the file's name."""
