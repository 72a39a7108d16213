"""The controller in training loops that know nothing of lr-gym."""
