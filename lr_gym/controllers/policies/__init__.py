"""What decides on a learning rate."""
