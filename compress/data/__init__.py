"""One kind of data a file; a recipe's word is the file's name. cases.py is what they all give."""
