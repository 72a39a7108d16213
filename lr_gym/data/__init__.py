"""Corpora, as splits of character tokens."""
