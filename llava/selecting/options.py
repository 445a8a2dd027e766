"""What a user says about pruning: checked, told by flags, described in records and read from them in one place."""

from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from llava import layout
from llava.command import SHARE, Number, at_least
from llava.flags.pruning import HOSTED, LEAST, NATIVE
from llava.pruners import Pruner, add_pruner_args, name_of, option_names, resolve_pruner
from llava.pruners.base import BUDGETS
from llava.pruners.checks import is_count, is_number, plain
from llava.pruners.cues import CLIP_TEXT_CUES, INSIDE_CUES

POSITIONS = ("compact", "original")
TEXT_CHUNKING = ("release", "bos_eos")
ATTENTION = ("cls", "received")
MOVING = {"spectral": frozenset({"embeds"}), "mass": frozenset({"cls_attention", "relevance"})}
"""Budgets that follow the picture, with the cues that they are measured from."""
SPLITS = {"even": frozenset(), "importance": frozenset({"relevance", "joint_embeds", "text_sequence"})}
"""Ways to split a budget among the tiles of an image, with the cues that they are measured from."""

HOSTS = (NATIVE, HOSTED)
"""Whose models read an option: LLaVA's own classes, or those of Transformers."""

AS_SET: Any = object()
"""Of one call: prune as the model is set to; None is a call without pruning."""


def _entry(default: Any, help: str, choices: Sequence[str] = (), hosts: Sequence[str] = HOSTS, **flag: Any) -> Any:
    """A field, with the help and further arguments of its flag, and the hosts that read it."""
    help += "" if default is None else f"; {default} if not given"
    valid = (None, *choices) if default is None and choices else choices
    flag |= {"choices": choices} if choices else {}
    return field(default=default, metadata={"valid": valid, "hosts": hosts, "flag": {"help": help, **flag}})


class Unfit(ValueError):
    """Options of which each is valid, but not all together."""


@dataclass(frozen=True)
class PruningOptions:
    """Which pruner chooses, and how its choice is applied to a model.

    Args:
        pruner: chooses the tokens; None is a model without pruning.
        budget_scope: "tile" or "image", what one selection covers; None leaves it to the pruner.
        positions: "compact" numbers the kept tokens without gaps, "original" leaves each its position; None is
            "original" behind a decoder layer, else the model's own.
        prune_layer: decoder layers that see all tokens, 0 or more; 0 prunes before the language model.
        text_chunking: how texts over CLIP's context length are cut, "release" or "bos_eos".
        attention: what is read as attention, "cls" or "received"; None is what the encoder has.
        relevance: what is read as relevance, "llm_text" or "clip_text".
        text_tower: folder or hub id of the CLIP behind "clip_text".
        budget: "fixed", the pruner's number for every tile; "spectral" or "mass", a number for each image, of which the
            pruner's is the wanted mean; see ``llava.selecting.budgets``.
        erank_ref: effective rank of an image that has that very number, for "spectral"; None is what was measured for
            the checkpoint.
        mass: share of attention and relevance that is kept, for "mass".
        budget_split: "even" or "importance", how the tiles of an image share its budget.

    Raises:
        TypeError: a pruner that is none.
        ValueError: a value that is not one of the valid ones, which it names.
        Unfit: two that exclude each other, or of which one needs the other; a ValueError.
    """

    pruner: Pruner | None = None
    budget_scope: str | None = _entry(
        None, "what a budget counts for; the pruner's own if not given", ("tile", "image")
    )
    positions: str | None = _entry(None, "of kept tokens; the model's own if not given", POSITIONS)
    prune_layer: int = _entry(0, "decoder layers that see all tokens", type=at_least(0), metavar="K")
    text_chunking: str = _entry("release", "how texts over 77 tokens are cut", TEXT_CHUNKING)
    attention: str | None = _entry(
        None, "what pruners read as attention; the encoder's own if not given", ATTENTION, [HOSTED]
    )
    relevance: str = _entry("llm_text", "what pruners read as relevance", ("llm_text", "clip_text"), [HOSTED])
    text_tower: str | None = _entry(
        None, "folder or hub id of the CLIP that the encoder came from, for --relevance clip_text", hosts=[HOSTED]
    )
    budget: str = _entry("fixed", "of an image: its number of tokens, fixed or by what it shows", ("fixed", *MOVING))
    erank_ref: float | None = _entry(
        None, "of --budget spectral; the checkpoint's own if not given", type=Number(float, 0, above=True)
    )
    mass: float = _entry(0.9, "share that --budget mass keeps", type=SHARE)
    budget_split: str = _entry("even", "how the tiles of an image share its budget", tuple(SPLITS))

    def __post_init__(self) -> None:
        if self.pruner is not None and not isinstance(self.pruner, Pruner):
            raise TypeError(f"a pruner is a Pruner or None, not {self.pruner!r}; resolve_pruner builds one by name")
        for each in fields(self):
            if each.metadata.get("valid"):
                check_choice(each.name, getattr(self, each.name), each.metadata["valid"])
        if not is_count(self.prune_layer):
            raise ValueError(f"prune_layer must be an integer, 0 or more, not {self.prune_layer!r}")
        object.__setattr__(self, "prune_layer", plain(self.prune_layer))
        if self.prune_layer and self.positions == "compact":
            raise Unfit("with prune_layer of 1 or more, positions are 'original': tokens are numbered before they go")
        if (self.relevance == "clip_text") != (self.text_tower is not None):
            raise Unfit('relevance="clip_text" and text_tower, the folder or hub id of a CLIP, need one another')
        self._check_budget()
        if self.pruner is not None:
            self._check_layer(self.pruner)
            self._check_fit(self.pruner)

    def _check_layer(self, pruner: Pruner) -> None:
        name = name_of(pruner)
        if not self.prune_layer and pruner.needs & INSIDE_CUES:
            raise Unfit(f"{name} needs prune_layer of 1 or more: it reads attention of the language model")
        if self.prune_layer and pruner.merges:
            raise Unfit(f"{name} merges tokens before the projector: it needs prune_layer 0")

    def _check_budget(self) -> None:
        for name in ("erank_ref", "mass"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if self.erank_ref is not None and not (is_number(self.erank_ref) and 0 < self.erank_ref < float("inf")):
            raise ValueError(f"erank_ref must be a number above 0, not {self.erank_ref!r}")
        if not (is_number(self.mass) and 0 < self.mass <= 1):
            raise ValueError(f"mass must be a number in (0, 1], not {self.mass!r}")
        for name, budget in (("erank_ref", "spectral"), ("mass", "mass")):
            default = next(each.default for each in fields(self) if each.name == name)
            if getattr(self, name) != default and self.budget != budget:
                raise Unfit(f"{name} is for budget {budget!r}, not {self.budget!r}")

    def _check_fit(self, pruner: Pruner) -> None:
        """Refuse a pruner whose budget cannot follow the picture, or be split, as it is asked to."""
        tokens = pruner.visual_token_num
        if self.budget in MOVING and (tokens is None or tokens < LEAST):
            given = f"keep_ratio {pruner.keep_ratio}" if tokens is None else f"visual_token_num {tokens}"
            raise Unfit(f"budget {self.budget!r} needs visual_token_num of {LEAST} or more, not {given}")
        if self.budget == "spectral" and self.prune_layer:
            raise Unfit("budget 'spectral' measures projected tokens: it needs prune_layer 0")
        if self.budget_split != "even" and (self.budget_scope or pruner.scope) != "tile":
            raise Unfit(f"budget_split {self.budget_split!r} needs budget_scope 'tile': an image's tiles are one here")

    @classmethod
    def of(cls, host: str, **keywords: Any) -> "PruningOptions":
        """Make them of the keywords that users give: a pruner by name, its budget and own options, and the rest.

        Raises:
            TypeError, ValueError: as ``resolve_pruner``, to which belongs what is no option of the host; and as above.
        """
        refuse_unknown(keywords, host)
        own = {name: keywords.pop(name) for name in names_of(host) if name in keywords}
        return cls(resolve_pruner(**keywords), **own)

    @classmethod
    def from_args(cls, args: Any, host: str) -> "PruningOptions":
        """Make them of parsed flags of ``add_pruning_args``; what is absent or None is not given. Raises as ``of``."""
        names = ("pruner", *BUDGETS, *option_names(), *names_of(host))
        given = {name: getattr(args, name, None) for name in names}
        return cls.of(host, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def read(cls, metadata: Mapping[str, Any], host: str) -> "PruningOptions":
        """Read what was described, or the ``metadata`` of an answer of that host's models. Raises as ``of``."""
        run = metadata.get("run", {})
        own = {name: run[name] for name in names_of(host) if run.get(name) is not None}
        return cls.of(host, pruner=metadata["pruner"], **metadata["options"], **own)

    def describe(self) -> dict[str, Any]:
        """Name and ``options`` of the pruner, its budget among them; and as ``run`` what differs from its default."""
        options = {} if self.pruner is None else self.pruner.given()
        chosen = [each.name for each in fields(self)[1:] if getattr(self, each.name) != each.default]
        run = {name: getattr(self, name) for name in chosen}
        return {"pruner": name_of(self.pruner), "options": options, "run": run}

    def brought(self, options: "PruningOptions | None") -> "PruningOptions":
        """What a call prunes with that brings ``options``, ``AS_SET`` or None, on a model that is set to these.

        Raises:
            TypeError: options of another type, such as a pruner's name.
            ValueError: they differ in what a model has one of: a layer with hooks, a text side, a kind of attention.
        """
        if options is AS_SET:
            return self
        if options is not None and not isinstance(options, PruningOptions):
            raise TypeError(f"pruning must be PruningOptions or None, not {type(options).__name__}")
        if options is None or options.pruner is None:
            return PruningOptions()
        own = {"prune_layer": (0, self.prune_layer), "text_tower": (None, self.text_tower)}
        own["attention"] = (self.attention,)
        if options.needs & CLIP_TEXT_CUES:
            own["text_chunking"] = (self.text_chunking,)
        for name, valid in own.items():
            if getattr(options, name) not in valid:
                raise ValueError(f"{name} of a call must be the model's, {valid[-1]}, not {getattr(options, name)}")
        return options

    @property
    def chooser(self) -> Pruner:
        """The pruner of options that have one; raises ValueError where they have none."""
        if self.pruner is None:
            raise ValueError("these options choose no tokens: they have no pruner")
        return self.pruner

    @property
    def needs(self) -> frozenset[str]:
        """The cues that the pruner reads, and those that its budget is measured from; none without a pruner."""
        return frozenset() if self.pruner is None else self.pruner.needs | self.budget_needs

    @property
    def budget_needs(self) -> frozenset[str]:
        """The cues that budgets are measured from."""
        return MOVING.get(self.budget, frozenset()) | SPLITS[self.budget_split]

    @property
    def varies(self) -> bool:
        """Whether how much is kept of a tile depends on what is seen, not on sizes alone."""
        return self.pruner is not None and (self.budget in MOVING or self.budget_split != "even")

    def completed(self, erank_refs: Mapping[int, float]) -> "PruningOptions":
        """The same with an ``erank_ref``, where the budget needs one and none is given.

        Args:
            erank_refs: what was measured for the model, by the number of tokens per tile; the nearest one is taken.

        Raises:
            ValueError: none was.
        """
        if self.pruner is None or self.budget != "spectral" or self.erank_ref is not None:
            return self
        if not erank_refs:
            raise ValueError(
                "erank_ref is missing for budget 'spectral': none was measured for this checkpoint; "
                "python -m llava.eval calibrate does it"
            )
        wanted = self.pruner.visual_token_num
        assert wanted is not None  # a spectral budget has one
        nearest = min(erank_refs, key=lambda tokens: (max(tokens, wanted) / min(tokens, wanted), tokens))
        return replace(self, erank_ref=erank_refs[nearest])

    def compact(self, default: str = "compact") -> bool:
        """Whether the kept tokens are numbered without gaps; ``default`` is the model's own way."""
        return (self.positions or ("original" if self.prune_layer else default)) == "compact"


def names_of(host: str) -> list[str]:
    """The options besides the pruner that models of a host read."""
    return [each.name for each in fields(PruningOptions) if host in each.metadata.get("hosts", ())]


def refuse_unknown(keywords: Iterable[str], host: str, *others: str) -> None:
    """Refuse a keyword that no pruner has and no model of the package reads, nor is one of ``others``.

    Raises:
        TypeError: names it, and all that are valid for models of ``host``.
    """
    pruners = ["pruner", *BUDGETS, *option_names()]
    if unknown := sorted({*keywords} - {*pruners, *others, *(each.name for each in fields(PruningOptions))}):
        valid = ", ".join(sorted({*pruners, *others, *names_of(host)}))
        raise TypeError(f"unknown options {', '.join(unknown)}; valid are {valid}")


def add_pruning_args(parser: ArgumentParser, host: str) -> None:
    """Add the flags of the pruners, and one for each option that models of ``host`` read."""
    add_pruner_args(parser)
    group = parser.add_argument_group("how a choice is applied")
    for each in fields(PruningOptions):
        if host in each.metadata.get("hosts", ()):
            group.add_argument(f"--{each.name}", **each.metadata["flag"])


def check_choice(name: str, value: Any, valid: Sequence[Any]) -> None:
    """Raise ValueError, which names them, where ``value`` is none of the ``valid`` ones; None is not named."""
    if value is not None or None not in valid:
        layout.check_key(name, value, [choice for choice in valid if choice is not None])


def check_texts(texts: Any) -> None:
    """Refuse texts of another form than one string, or one string or None for each prompt; raises TypeError."""
    if texts is None or isinstance(texts, str):
        return
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise TypeError(f"`texts` must be a string or a list with one for each prompt, not {type(texts).__name__}")
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise TypeError(f"`texts` must be strings or None, not {type(text).__name__}")
