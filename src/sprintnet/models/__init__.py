"""Models: networks by name, their layer table, their weights on disk."""
