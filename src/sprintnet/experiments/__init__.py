"""Many runs: studies over seeds, comparisons, benchmarks, label errors."""
