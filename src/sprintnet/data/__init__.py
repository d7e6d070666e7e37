"""Data: sources and folders become arrays, arrays become batches on the device."""
