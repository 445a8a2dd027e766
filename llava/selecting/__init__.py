"""The seam between pruners and models: what any kind of model needs to choose its visual tokens."""
