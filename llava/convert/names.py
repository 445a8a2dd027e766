"""What a weight is called in LLaVA's checkpoints and in those of Transformers' own LLaVA classes.

LLaVA's names are the ones that converting works with, whatever it reads. Transformers' are written as llava-hf's
checkpoints on the hub have them; in memory, and in what its classes save today, they differ, and are read as well.
"""

import re

_TOWER = "model.vision_tower.vision_tower.vision_model."

_TO_LLAVA = (  # the first that matches counts
    (r"^(?:model\.)?vision_tower\.(?:vision_tower\.)?(?:vision_model\.)?", _TOWER),
    (r"^(?:model\.)?multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^(?:model\.)?multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^(?:model\.)?image_newline$", "model.image_newline"),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(?:model\.language_model|language_model\.model)\.", "model."),
)
_TO_HF = (
    (rf"^{re.escape(_TOWER)}", "vision_tower.vision_model."),
    (r"^model\.mm_projector\.0\.", "multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "multi_modal_projector.linear_2."),
    (r"^model\.image_newline$", "image_newline"),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.", "language_model.model."),
)
_CLIP_VISION = re.compile(r"^(?:vision_model\.)?(?=(?:embeddings|pre_layrnorm|encoder|post_layernorm)\.)")


def llava_name(name: str) -> str:
    """Return LLaVA's name of a weight, given by any of its names."""
    return _rename(name, _TO_LLAVA)


def hf_name(name: str) -> str:
    """Return the name in Transformers' checkpoints of a weight, given by LLaVA's."""
    return _rename(name, _TO_HF)


def tower_name(name: str) -> str | None:
    """Return LLaVA's name of a weight of a CLIP checkpoint; None if it is not of CLIP's vision side."""
    return _CLIP_VISION.sub(_TOWER, name) if _CLIP_VISION.match(name) else None


def is_tower(name: str) -> bool:
    """Whether a weight, by LLaVA's name, is the vision tower's."""
    return name.startswith(_TOWER)


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        renamed, found = re.subn(pattern, replacement, name)
        if found:
            return renamed
    return name
