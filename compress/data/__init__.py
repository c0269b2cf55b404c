"""One kind of data a file; a recipe's word is the file's name. dataset/ is what they are all made of."""
