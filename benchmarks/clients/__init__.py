"""Libraries and scripts that nobody here wrote, run on the environments."""
