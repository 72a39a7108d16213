"""The comparison of methods on equal budgets."""
