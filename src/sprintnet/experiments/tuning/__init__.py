"""The search for better settings of a recipe, and whether what it finds is better."""
