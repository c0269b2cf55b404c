"""Packs: a finished artifact with all that its device must do before and after it."""
