"""The benchmarks: how each is asked, and how its answers are scored."""
