"""Tests of benchmarks/comparison."""
