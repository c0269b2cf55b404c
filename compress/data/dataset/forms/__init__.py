"""How masks are given otherwise than as images of one value a class: a form a file (annotated.py is the contract)."""
