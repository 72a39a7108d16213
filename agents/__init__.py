"""Agents for the learning-rate environment; most modules are scripts as well."""
