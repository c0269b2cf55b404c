"""Parts that several networks are built of, one a file; each is as the paper that its docstring names has it."""
