"""The controller in other frameworks' loops."""
