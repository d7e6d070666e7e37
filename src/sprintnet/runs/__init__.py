"""Run folders: paths, atomic file formats, the record of machine and code."""
