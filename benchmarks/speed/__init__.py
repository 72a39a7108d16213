"""Speed of training, on CPUs and GPUs."""
