"""Tests of benchmarks/clients."""
