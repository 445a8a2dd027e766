"""Tokenizer, image processor and chat template of a LLaVA checkpoint, as Transformers' processors take them."""

import json
import logging
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from transformers import (
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaNextConfig,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle, conv_templates
from llava.convert.parser import CONV_MODES
from llava.mm_utils import tokenizer_image_token

logger = logging.getLogger(__name__)

PAD_TOKEN = "<pad>"
WORD_START = "▁"
# Everything of a text that follows an image is tokenized apart in LLaVA, so it begins as a text does.
AFTER_IMAGE = Regex(rf"{DEFAULT_IMAGE_TOKEN}(?!{DEFAULT_IMAGE_TOKEN})(?=[\s\S])")
_PREPROCESSING = (
    *("size", "crop_size", "resample", "do_resize", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std", "do_convert_rgb"),
)
_TEMPLATE = (
    "{%- set system = SYSTEM %}"
    "{%- if messages[0].role == 'system' %}{{- raise_exception('the system prompt is part of the template') }}"
    "{%- endif %}{{- system }}"
    "{%- for message in messages %}"
    "{{- USER_OPEN if message.role == 'user' else ASSISTANT_OPEN }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content if part.type == 'image' %}{{- '<image>\\n' }}{%- endfor %}"
    "{%- for part in message.content if part.type == 'text' %}{{- part.text }}{%- endfor %}"
    "{%- endif %}"
    "{{- USER_CLOSE if message.role == 'user' else ASSISTANT_CLOSE }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- GENERATION }}{%- endif %}"
)


def hf_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows ``<image>`` and ``<pad>`` and gives, in one pass, the ids that LLaVA gives.

    LLaVA tokenizes the pieces of a prompt between images one by one. A tokenizer that begins a text with a word start
    therefore begins every piece with one, which an added token in one pass does not.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False).input_ids)[0]
    if first.startswith(WORD_START):
        rule = normalizers.Replace(AFTER_IMAGE, DEFAULT_IMAGE_TOKEN + WORD_START)
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([rule, *own])
    converted = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        model_max_length=tokenizer.model_max_length,
        padding_side="left",  # what generation in batches needs
        clean_up_tokenization_spaces=False,
    )
    # "normalized" lets the rule above see the image token; other special tokens stay out of its sight.
    image = AddedToken(DEFAULT_IMAGE_TOKEN, normalized=True, special=True)
    converted.add_tokens([image, AddedToken(PAD_TOKEN, normalized=False, special=True)], special_tokens=True)
    converted.pad_token = PAD_TOKEN
    _compare(tokenizer, converted)
    return converted


def _compare(tokenizer: PreTrainedTokenizerBase, converted: PreTrainedTokenizerFast) -> None:
    """Warn of prompts that the converted tokenizer does not tokenize as LLaVA does."""
    image_id = converted.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    for mode in CONV_MODES:
        conversation = conv_templates[mode].copy()
        for text in ("<image>\nWhat is this?", "A cat.", "<image><image> And\n\n  these? <image>", None):
            conversation.append_message(conversation.roles[len(conversation.messages) % 2], text)
        prompt = conversation.get_prompt()
        if converted(prompt).input_ids != tokenizer_image_token(prompt, tokenizer, image_id):
            logger.warning("the converted tokenizer does not give LLaVA's ids for prompts of %s", mode)


def hf_image_processor(clip: CLIPImageProcessorPil, raw: dict[str, Any], config: PretrainedConfig):
    """Return the image processor that prepares images as ``process_images`` does for LLaVA's config ``raw``."""
    options = {key: value for key, value in clip.to_dict().items() if key in _PREPROCESSING}
    if isinstance(config, LlavaNextConfig):
        return LlavaNextImageProcessorPil(image_grid_pinpoints=config.image_grid_pinpoints, **options)
    return LlavaImageProcessorPil(do_pad=raw.get("image_aspect_ratio") == "pad", **options)


def chat_template(conversation: Conversation) -> str:
    """Return a Jinja template that renders messages as ``conversation`` does, images before the text of their turn."""
    user, assistant = conversation.roles
    sep, sep2 = conversation.sep, conversation.sep2
    words = {
        SeparatorStyle.TWO: (f"{user}: ", sep, f"{assistant}: ", sep2, f"{assistant}:", conversation.system + sep),
        SeparatorStyle.LLAMA_2: ("[INST] ", " [/INST]", " ", f" {sep2}", "", ""),
        SeparatorStyle.MPT: (user, sep, assistant, sep, assistant, conversation.system + sep),
    }[conversation.sep_style]
    names = ("USER_OPEN", "USER_CLOSE", "ASSISTANT_OPEN", "ASSISTANT_CLOSE", "GENERATION", "SYSTEM")
    template = _TEMPLATE
    for name, word in zip(names, words, strict=True):
        template = template.replace(name, json.dumps(word))
    return template


def hf_processor(image_processor, tokenizer, config: PretrainedConfig, conv_mode: str) -> ProcessorMixin:
    """Return the processor of a converted checkpoint."""
    kind = LlavaNextProcessor if isinstance(config, LlavaNextConfig) else LlavaProcessor
    return kind(
        image_processor,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # [CLS], which the strategy "default" takes off again
        chat_template=chat_template(conv_templates[conv_mode]),
    )
