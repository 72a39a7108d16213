"""Tests of benchmarks/paper."""
