"""Our training against that of other libraries. Run `python -m benchmarks.peers --help`."""
