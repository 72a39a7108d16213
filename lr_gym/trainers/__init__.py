"""Populations of training runs, steered by learning rates."""
