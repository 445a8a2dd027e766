"""The models of this package for lmms-eval: ``llava_pruned`` (LLaVA's format) and ``vlm_pruned`` (Transformers').

lmms-eval finds ``manifests`` by the entry point group ``lmms_eval.models``; nothing else here needs it but ``adapter``.
"""

from typing import Any


def manifests() -> list[Any]:
    """The names of the models and the classes behind them, as lmms-eval's registry takes them."""
    from lmms_eval.models.registry_v2 import ModelManifest

    classes = {"llava_pruned": "LlavaPruned", "vlm_pruned": "VlmPruned"}
    return [
        ModelManifest(model_id=name, simple_class_path=f"llava.lmms.adapter.{cls}") for name, cls in classes.items()
    ]
