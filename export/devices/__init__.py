"""One device a file, one constant in it; a recipe's word is the file's name."""
