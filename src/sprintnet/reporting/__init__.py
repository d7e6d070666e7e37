"""Text, figures and pages about runs; nothing here imports PyTorch."""
