"""What selection, vision and prefill cost, measured with random weights built in place; see ``docs/performance.md``."""
