"""Evaluation: logits for a split, and the figures that follow from them."""
