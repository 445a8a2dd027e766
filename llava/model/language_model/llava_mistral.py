"""LLaVA on Mistral."""

from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, MistralForCausalLM, MistralModel

from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel


class LlavaMistralConfig(MistralConfig):
    """Mistral's configuration; LLaVA's own keys (``mm_*``, ``image_*``) are attributes as in its config.json."""

    model_type = "llava_mistral"


class LlavaMistralModel(LlavaMetaModel, MistralModel):
    """Mistral's decoder with a vision tower and a projector."""

    config_class = LlavaMistralConfig
    _no_split_modules = ["MistralDecoderLayer", "CLIPVisionTower"]


class LlavaMistralForCausalLM(LlavaMetaForCausalLM, MistralForCausalLM):
    """LLaVA-1.6 (Mistral)."""

    config_class = LlavaMistralConfig
    body_class = LlavaMistralModel


AutoConfig.register("llava_mistral", LlavaMistralConfig)
AutoModelForCausalLM.register(LlavaMistralConfig, LlavaMistralForCausalLM)
