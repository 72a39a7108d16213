"""How fast training is, where a GPU is at hand."""
