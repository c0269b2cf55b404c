"""Training losses, the recipe's words: each a frozen dataclass of options that is called; MONAI's where it has them."""
