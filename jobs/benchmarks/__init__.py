"""The benchmarks of `jobs/benchmark.py`, one module per question."""
