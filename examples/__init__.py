"""Training loops that use the controller, and a training as an environment."""
