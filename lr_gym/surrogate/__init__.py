"""Simulated training: a fitted law of the loss curve."""
