"""Models that answer and score questions in batches, whoever asks: LLaVA's own format, and Transformers'."""
