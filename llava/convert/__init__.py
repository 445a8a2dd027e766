"""LLaVA's checkpoints and the folders of Transformers' own LLaVA classes, turned into each other.

``llava convert`` is the program; the parts are names, weights, configs and processors.
"""
