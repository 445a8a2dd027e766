"""LLaVA on Llama and Vicuna."""

from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel


class LlavaConfig(LlamaConfig):
    """Llama's configuration; LLaVA's own keys (``mm_*``, ``image_*``) are attributes as in its config.json."""

    model_type = "llava_llama"


LlavaLlamaConfig = LlavaConfig


class LlavaLlamaModel(LlavaMetaModel, LlamaModel):
    """Llama's decoder with a vision tower and a projector."""

    config_class = LlavaConfig
    _no_split_modules = ["LlamaDecoderLayer", "CLIPVisionTower"]


class LlavaLlamaForCausalLM(LlavaMetaForCausalLM, LlamaForCausalLM):
    """LLaVA-1.5 and LLaVA-1.6 (Vicuna)."""

    config_class = LlavaConfig
    body_class = LlavaLlamaModel


AutoConfig.register("llava_llama", LlavaConfig)
AutoModelForCausalLM.register(LlavaConfig, LlavaLlamaForCausalLM)
