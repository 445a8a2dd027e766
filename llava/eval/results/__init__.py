"""Settings, results on disk, and tables of them."""
