"""Benchmarks: ours against a plain anchor. Run `python -m benchmarks --help`."""
