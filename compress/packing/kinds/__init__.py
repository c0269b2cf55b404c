"""Whom a pack is for: a file each."""
