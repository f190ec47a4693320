"""Benchmarks of mip against baselines. Run `python -m benchmarks --help`."""
