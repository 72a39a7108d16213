"""Tests of surrogate."""
