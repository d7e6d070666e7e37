"""SprintNet."""
