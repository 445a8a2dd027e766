"""Pruning in vLLM: a plugin that ``pip install`` makes known to every vLLM of the same environment.

``vllm serve FOLDER --hf-overrides '{"visual_pruner": {"pruner": "cdpruner", "visual_token_num": 64}}'`` answers from
pruned images. Without that entry vLLM runs its own classes.
"""

TESTED = ("0.32.0", "0.33")
"""The oldest vLLM that the tests passed with, and the first that none did."""
ENTRY = "visual_pruner"
"""What the options are called in ``--hf-overrides``."""
ARCHITECTURES = ("LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration")
"""The classes of vLLM that can prune."""
