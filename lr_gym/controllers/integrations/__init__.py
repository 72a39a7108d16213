"""The controller as a callback of other training frameworks."""
