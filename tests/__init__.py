"""Tests: behaviour a user relies on, from outside."""
