"""How far the fitted laws can be trusted."""
