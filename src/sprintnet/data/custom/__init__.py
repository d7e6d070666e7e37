"""Custom datasets: folders, tables, arrays."""
