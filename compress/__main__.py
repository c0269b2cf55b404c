"""`python -m compress`, the same as the console script."""

from compress.cli import main

if __name__ == "__main__":
    main()
