"""One command a file: what each of the command line's words does, from its beginning to its end."""
