"""Policies: each decides on a learning rate from observations."""
