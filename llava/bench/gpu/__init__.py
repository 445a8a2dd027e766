"""Everything that needs a GPU, in one run of a few minutes: what is right, what is reached and what it costs."""
