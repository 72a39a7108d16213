"""Tests of mdp."""
