"""The tables of README.md and docs/, a module per page or group of pages."""
