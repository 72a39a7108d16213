"""Controllers on runs they have never seen."""
