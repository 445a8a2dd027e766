"""Whether all is there that a run reads, before a model is loaded."""
