"""Talking with a model by hand."""
