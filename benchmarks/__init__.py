"""The evidence: comparisons and measurements, each one command."""
