"""Who decides: agents for the learning-rate environment, each a script and a module."""
