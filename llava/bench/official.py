"""The methods' own code, timed beside ours where a user has it. Nothing of it is part of this package.

Each repository is a folder below ``--official-root`` whose name contains the method's, in any case: ``CDPruner``. One
function of its ``llava_arch.py`` is taken out by name: ``encode_images`` of CDPruner, VisPruner and MFPruner,
``DivPrune`` of DivPrune. The model around it is replaced by the cues themselves and a projector that does nothing.
"""

import __future__

import ast
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llava.pruners import VisualCues

logger = logging.getLogger(__name__)

HEADS = 16
JOINT_WIDTH = 768
IMPORTANT_RATIO = 0.5


def official_selection(root: Path, method: str, cues: VisualCues, kept: int) -> Callable[[], Any] | None:
    """The official selection of ``kept`` of the tokens in ``cues``; None, with a warning, where it does not run."""
    found = {path: path.relative_to(root).parts for path in sorted(root.rglob("llava_arch.py"))}
    sources = [path for path, parts in found.items() if any(method in part.lower() for part in parts)]
    if not sources:
        logger.warning("%s: no llava_arch.py in a folder named after %s, not timed", root, method)
        return None
    try:
        call = _bind(sources[0], method, cues, kept)
        call()
    except Exception as error:  # foreign code of any version may fail in any way
        logger.warning("%s: the official %s does not run here (%r), not timed", sources[0], method, error)
        return None
    return call


def _bind(source: Path, method: str, cues: VisualCues, kept: int) -> Callable[[], Any]:
    """The official function on a stand-in for its model, ready to be called."""
    nodes = {node.name: node for node in ast.walk(ast.parse(source.read_bytes())) if isinstance(node, ast.FunctionDef)}
    model = SimpleNamespace(
        visual_token_num=kept,
        important_ratio=IMPORTANT_RATIO,
        get_visual_token_num=lambda: kept,
        get_important_ratio=lambda: IMPORTANT_RATIO,
    )
    if method == "divprune":
        for name in ("DivPrune", "pairwise_cosine_similarity"):
            setattr(model, name, MethodType(_function(nodes[name], source), model))
        tokens = cues.embeds.flatten(0, 1)
        return lambda: model.DivPrune(tokens, len(tokens), threshold_ratio=kept / len(tokens))
    node = nodes["encode_images"]
    outputs = _tower_outputs(node, cues)
    model.get_vision_tower = lambda: lambda *args, **kwargs: outputs
    model.mm_projector = lambda tokens: tokens
    model.get_model, model.config = lambda: model, model
    encode = MethodType(_function(node, source), model)
    inputs = [cues.features] * (len(node.args.args) - 1)
    return lambda: encode(*inputs)


def _function(node: ast.FunctionDef, source: Path) -> FunctionType:
    """Compile one method by itself, without decorators and without evaluating annotations."""
    node.decorator_list = []
    module = ast.Module(body=[node], type_ignores=[])
    namespace = {"torch": torch, "nn": nn, "F": nn.functional, "math": math, "np": np}
    exec(compile(module, str(source), "exec", flags=__future__.annotations.compiler_flag), namespace)
    return namespace[node.name]


def _tower_outputs(node: ast.FunctionDef, cues: VisualCues) -> tuple[Tensor, ...]:
    """What the official vision tower would return, in the order in which ``encode_images`` names it."""
    assignments = [
        each
        for each in ast.walk(node)
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Tuple) and isinstance(each.value, ast.Call)
    ]
    from_tower = [each.targets[0].elts for each in assignments if "tower" in ast.unparse(each.value)]
    if not from_tower:
        raise ValueError("encode_images does not unpack what its vision tower returns")
    return tuple(_output(ast.unparse(name).lower(), cues) for name in from_tower[0])


def _output(name: str, cues: VisualCues) -> Tensor:
    """The tensor that a variable's name asks for; image and text embeddings whose cosines are the relevance."""
    relevance = cues.relevance.clamp(-1, 1)
    if "att" in name:
        return cues.cls_attention.unsqueeze(1).repeat(1, HEADS, 1)  # (B, H, N)
    if "text" in name:
        return torch.eye(1, JOINT_WIDTH, device=cues.device)  # (1, E)
    if "embed" in name:
        pair = torch.stack([-relevance, (1 - relevance.square()).sqrt()], dim=2)
        return nn.functional.pad(pair, (0, JOINT_WIDTH - 2))  # (B, N, E)
    return cues.features
