"""LLaVA on Mistral."""

from torch import nn
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

    def __init__(self, config: LlavaMistralConfig, tower_in_checkpoint: bool | None = None):
        super(MistralForCausalLM, self).__init__(config)
        self.model = LlavaMistralModel(config, tower_in_checkpoint)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self) -> LlavaMistralModel:
        return self.model


AutoConfig.register("llava_mistral", LlavaMistralConfig)
AutoModelForCausalLM.register(LlavaMistralConfig, LlavaMistralForCausalLM)
