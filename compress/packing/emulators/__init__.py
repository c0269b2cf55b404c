"""Servers of packs, as far as a mask takes: what each pack is proven by where the server itself is not here."""
