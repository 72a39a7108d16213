"""Populations of training runs, controlled by learning rates."""
