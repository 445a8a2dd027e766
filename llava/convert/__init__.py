"""LLaVA's checkpoints and the folders of Transformers' own LLaVA classes, turned into each other.

``scripts/convert_llava_to_hf.py`` is the program; the parts are names, weights, configs and processors.
"""
