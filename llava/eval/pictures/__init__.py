"""Figures, overlays and the page of results."""
