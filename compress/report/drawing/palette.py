"""The colours that classes are drawn in."""

PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00")
"""Told apart with every common colour blindness (Okabe & Ito 2008), in the order that stands out on grey."""
