"""Tests of benchmarks/controller."""
