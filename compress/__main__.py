"""`python -m compress`, the same as the console script."""

from compress.cli import main

main()
