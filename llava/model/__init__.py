"""LLaVA's models and their loading."""

from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaConfig, LlavaLlamaForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralConfig, LlavaMistralForCausalLM

__all__ = [
    "LlavaConfig",
    "LlavaLlamaConfig",
    "LlavaLlamaForCausalLM",
    "LlavaMistralConfig",
    "LlavaMistralForCausalLM",
]
