"""Gymnasium's API: single and vector environments."""
