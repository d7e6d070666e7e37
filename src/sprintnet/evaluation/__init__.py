"""Evaluation: predictions of a trained model, the metrics that follow from them, and explanations."""
