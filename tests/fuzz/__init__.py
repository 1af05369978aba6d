"""Fuzzing: hostile input gives a result or an error of this package, within 5 seconds and 1 GB.

`python -m tests.fuzz --help` runs the targets; `test_fuzz.py` calls each a few hundred times.
"""
