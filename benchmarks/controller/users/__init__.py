"""The users' benchmark: small trainings as people have them, in a loop of their own."""
