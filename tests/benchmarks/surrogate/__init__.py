"""Tests of benchmarks/surrogate."""
