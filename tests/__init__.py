"""Tests of the package, the agents and the benchmarks, through their public API."""
