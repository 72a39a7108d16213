"""Checks of committed results: what made them, and whether a sample still comes out."""
