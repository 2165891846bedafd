"""Benchmarks of Millhand and of its peers. `python -m bench --help` tells how to run them."""
