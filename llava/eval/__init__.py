"""Evaluation: ``model_vqa_*`` asks the questions of a benchmark, ``eval_*`` scores the answers."""
