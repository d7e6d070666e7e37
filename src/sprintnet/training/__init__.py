"""Training: optimizer, schedule, step, loop and checkpoint."""
