"""What logging costs, measured side by side: `python -m benchmarks` runs all of it."""
