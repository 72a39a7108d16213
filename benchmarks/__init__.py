"""The evidence: comparisons and measurements, each one command."""

from agents.console import replace_unprintable

replace_unprintable()  # every module is a script, and ends with hours of results
