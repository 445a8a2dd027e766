"""The methods' own code, timed beside ours where a user has it. Nothing of it is part of this package.

Each repository is a folder below ``--official-root`` whose name contains the method's, in any case: ``CDPruner``. One
function of its ``llava_arch.py`` is taken out by name, ``encode_images`` of CDPruner, VisPruner and MFPruner and
``DivPrune`` of DivPrune, with the functions of that file that it calls. The model around it is replaced by the cues
themselves and a projector that does nothing.
"""

import __future__

import ast
import logging
import math
from collections.abc import Callable, Iterator
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
        choose = _method("DivPrune", nodes, model, source)
        tokens = cues.embeds.flatten(0, 1)
        return lambda: choose(tokens, len(tokens), threshold_ratio=kept / len(tokens))
    outputs = _tower_outputs(nodes["encode_images"], cues)
    model.get_vision_tower = lambda: lambda *args, **kwargs: outputs
    model.mm_projector = lambda tokens: tokens
    model.get_model, model.config = lambda: model, model
    encode = _method("encode_images", nodes, model, source)
    inputs = [cues.features] * (len(nodes["encode_images"].args.args) - 1)
    return lambda: encode(*inputs)


def _method(name: str, nodes: dict[str, ast.FunctionDef], model: SimpleNamespace, source: Path) -> Callable[..., Any]:
    """Give ``model`` one method and what that calls of its own file, unless ``model`` has a stand-in for it."""
    wanted = [name]
    for each in wanted:  # it grows meanwhile
        called = {called for called in _names(nodes[each]) if called in nodes and not hasattr(model, called)}
        wanted += sorted(called.difference(wanted))
    static = {each for each in wanted if "staticmethod" in map(ast.unparse, nodes[each].decorator_list)}
    functions = _compiled([nodes[each] for each in wanted], source)
    for each, function in functions.items():
        setattr(model, each, function if each in static else MethodType(function, model))
    return getattr(model, name)


def _names(node: ast.FunctionDef) -> Iterator[str]:
    """Names that a function reads, of its module and of ``self``."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self":
            yield each.attr


def _compiled(nodes: list[ast.FunctionDef], source: Path) -> dict[str, FunctionType]:
    """Compile functions by themselves, without decorators and without evaluating annotations."""
    for node in nodes:
        node.decorator_list = []
    module = ast.Module(body=nodes, type_ignores=[])
    namespace = {"torch": torch, "nn": nn, "F": nn.functional, "math": math, "np": np}
    exec(compile(module, str(source), "exec", flags=__future__.annotations.compiler_flag), namespace)
    return {node.name: namespace[node.name] for node in nodes}


def _tower_outputs(node: ast.FunctionDef, cues: VisualCues) -> tuple[Any, ...]:
    """What the official vision tower would return, in the order in which ``encode_images`` names it.

    A value that is unpacked, at once or by a later assignment, is a tuple of its own.
    """
    assigned = [(each.targets[0], each.value) for each in ast.walk(node) if isinstance(each, ast.Assign)]
    later = {value.id: names for names, value in assigned if isinstance(value, ast.Name) and _unpacks(names)}
    from_tower = [
        names
        for names, value in assigned
        if isinstance(value, ast.Call) and (value.args or value.keywords) and "tower" in ast.unparse(value.func)
    ]

    def outputs(names: ast.expr, later: dict[str, ast.expr]) -> Any:
        name = ast.unparse(names)
        if name in later:
            return outputs(later[name], {})  # the parts may bear the name of the whole
        return tuple(outputs(each, later) for each in names.elts) if _unpacks(names) else _output(name.lower(), cues)

    values = [outputs(names, later) for names in from_tower]
    if not values or not isinstance(values[0], tuple):
        raise ValueError("encode_images does not unpack what its vision tower returns")
    return values[0]


def _unpacks(names: ast.expr) -> bool:
    return isinstance(names, ast.Tuple | ast.List)


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
