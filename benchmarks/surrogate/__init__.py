"""Accuracy of the fitted laws, and speed of simulated training."""
