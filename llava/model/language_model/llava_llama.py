"""LLaVA on Llama and Vicuna."""

from torch import nn
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

    def __init__(self, config: LlavaConfig, tower_in_checkpoint: bool | None = None):
        super(LlamaForCausalLM, self).__init__(config)
        self.model = LlavaLlamaModel(config, tower_in_checkpoint)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self) -> LlavaLlamaModel:
        return self.model


AutoConfig.register("llava_llama", LlavaConfig)
AutoModelForCausalLM.register(LlavaConfig, LlavaLlamaForCausalLM)
