"""Built-in datasets: download, verify, cache."""
