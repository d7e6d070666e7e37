"""Reporting: what a run folder holds, shown; nothing here imports torch."""
