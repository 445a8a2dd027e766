"""How relevant each patch is to the question, in CLIP's joint space of images and texts."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPModel, CLIPTokenizer

from llava import compat
from llava.pruners.cues import TEXT_FORMS
from llava.selecting.options import TEXT_CHUNKING, check_choice
from llava.utils import encodable

REMEMBERED_TEXTS = 1024
REMEMBERED_SEQUENCES = 64  # a text takes 240 kB or more as a sequence
WIDTHS, ROWS = (16, 32, 48), (1, 4, 16)
"""What texts are padded to on a device that launches: few forms, so that a pass can be replayed; questions are short.
On the CPU they have the context's width and no rows are added: a text has the same bits in any company there.
"""
Embedded = dict[str, Tensor] | Callable[[], dict[str, Tensor]]
"""What texts come to, by the name of the cue, or what returns it."""


def unit(x: Tensor) -> Tensor:
    """Scale the last dimension to length 1; a zero vector stays zero."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def full_precision(device_type: str) -> AbstractContextManager:
    """A context in which autocast leaves float32 products alone."""
    known = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if known else nullcontext()


def chunk_ids(ids: list[int], length: int, chunking: str) -> list[list[int]]:
    """Cut the token ids of a text (start and end token included) into pieces of at most ``length``.

    ``release`` cuts at multiples of ``length`` and adds nothing, as the pruners' releases do: then the first of
    several chunks has no end token, and CLIP pools it where it says nothing about the text. ``bos_eos`` gives every
    chunk a start and an end token of its own.
    """
    if chunking == "release":
        return [ids[start : start + length] for start in range(0, len(ids), length)]
    bos, *words, eos = ids
    step = length - 2
    return [[bos, *words[start : start + step], eos] for start in range(0, max(len(words), 1), step)]


class ClipRelevance:
    """CLIP's text tower and both projections, in float32.

    ``run`` calls a pass through the text tower on a device that launches; who replays passes puts another in its place.

    A plain object, not a module: the weights belong to CLIP and must not end up in LLaVA's checkpoints.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, text_chunking: str = "release"):
        check_choice("text_chunking", text_chunking, TEXT_CHUNKING)
        self.tokenizer = tokenizer
        self.text_chunking = text_chunking
        text: Any = clip.config.text_config
        self.context_length: int = text.max_position_embeddings
        parts = {"text": clip.text_model, "text_projection": clip.text_projection, "projection": clip.visual_projection}
        self.weights: Any = nn.ModuleDict(parts)
        self.weights.float().eval().requires_grad_(False)
        self.run: Callable[..., tuple[Tensor]] = call
        self._embeddings: dict[str, Tensor] = {}
        self._beginnings: dict[str, Tensor] = {}
        self._sequences: dict[str, Tensor] = {}

    @classmethod
    def load(cls, text_tower: str, width: int, text_chunking: str) -> "ClipRelevance":
        """Load the CLIP that an encoder came from whose patches have ``width`` features.

        Raises:
            ValueError: the encoder came from no such CLIP, or weights are missing, which would be left random.
        """
        with compat.from_hub(text_tower):
            loaded: Any = CLIPModel.from_pretrained(text_tower, dtype="float32", output_loading_info=True)
        clip, report = loaded  # a pair, which it is not declared to be
        if clip.config.vision_config.hidden_size != width:
            raise ValueError(
                f"text_tower {text_tower}: patches of this CLIP have {clip.config.vision_config.hidden_size} features, "
                f"those of the model's encoder {width}; give the CLIP that the encoder came from"
            )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"text_tower {text_tower} lacks {len(missing)} weights, {missing[0]} among them")
        return cls(clip, CLIPTokenizer.from_pretrained(text_tower), text_chunking)

    def cues(self, names: Collection[str], patches: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return those in ``names`` of CLIP's cues of patches (B, N, C) and their texts, float32, as ``weigh`` does.

        Args:
            patches: outputs of the vision tower after its final layer norm.
            texts: B questions.
        """
        return self.weigh(patches, self.embed(names, texts, patches.device), names)

    def embed(self, names: Collection[str], texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Return what ``weigh`` makes each cue in ``names`` of: the embeddings of the texts, float32 (B, E) each.

        ``text_sequence`` (B, M, L, E) are those of every position of every segment of a text, which is a cue as it is;
        zeros fill up texts of fewer segments.

        All texts that are not remembered go through CLIP in one pass. It is in float32 whatever the tower computes in:
        read in float16, a question makes CDPruner and MFPruner keep other tokens.
        """
        if self._device != device:
            self.weights.to(device)
        ways = {
            "relevance": (self._embeddings, self.embed_texts),
            "dot_relevance": (self._beginnings, self.embed_beginnings),
        }
        with full_precision(device.type):
            embedded = {name: torch.stack(self._remembered(texts, *way)) for name, way in ways.items() if name in names}
            if "text_sequence" in names:
                sequences = self._remembered(texts, self._sequences, self.embed_sequences, REMEMBERED_SEQUENCES)
                embedded["text_sequence"] = pad_sequence(sequences, batch_first=True)
        return embedded

    @torch.no_grad()
    def weigh(self, patches: Tensor, embedded: Mapping[str, Tensor], names: Collection[str] = ()) -> dict[str, Tensor]:
        """Return the cues that patches (B, N, C) have to embedded texts, float32 (B, N) each, higher is more relevant.

        ``relevance`` is the negated cosine of every patch to its tile's text: CLIP's patches point away from the texts
        that describe them, hence the sign (as in CDPruner and TRIM). ``dot_relevance`` is the negated dot product
        (TRIM), neither scaled to unit length. ``text_sequence`` is handed on.

        Args:
            patches: outputs of the vision tower after its final layer norm.
            embedded: as ``embed`` returns it for B texts, on the device of the patches.
            names: of cues; with ``joint_embeds`` among them, the patches in the joint space (B, N, E) are one.
        """
        cues = {"text_sequence": embedded["text_sequence"]} if "text_sequence" in embedded else {}
        with full_precision(patches.device.type):
            projected = self.weights["projection"](patches.float())  # (B, N, E)
            if "joint_embeds" in names:
                cues["joint_embeds"] = projected
            for name, text in embedded.items():
                if name in TEXT_FORMS:
                    continue
                embeds = unit(projected) if name == "relevance" else projected
                cues[name] = -(embeds * text.unsqueeze(1)).sum(dim=-1)
        return cues

    @property
    def _device(self) -> torch.device:
        return self.weights["projection"].weight.device

    def _remembered(
        self,
        texts: Sequence[str],
        memory: dict[str, Tensor],
        embed: Callable[[list[str]], Iterable[Tensor]],
        limit: int = REMEMBERED_TEXTS,
    ) -> list[Tensor]:
        """Return the embedding of every text, each computed once however many images share its question."""
        known = {text: memory.get(text) for text in texts}  # another thread may forget what is remembered
        found = {text: embedding for text, embedding in known.items() if embedding is not None}
        unknown = [text for text in known if text not in found]
        new = dict(zip(unknown, embed(unknown) if unknown else [], strict=True))
        memory |= new
        for text in list(memory)[:-limit]:
            memory.pop(text, None)
        found |= new
        return [found[text].to(self._device) for text in texts]

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (len(texts), E): the mean of the unit embeddings of each text's chunks."""
        chunks = [chunk_ids(ids, self.context_length, self.text_chunking) for ids in self._ids(texts)]
        embeds = unit(self._embed_chunks([chunk for text_chunks in chunks for chunk in text_chunks]))
        if len(embeds) == len(chunks):
            return embeds  # each is the mean of itself
        return torch.stack([part.mean(dim=0) for part in embeds.split([len(parts) for parts in chunks])])

    @torch.no_grad()
    def embed_beginnings(self, texts: Sequence[str]) -> Tensor:
        """Return (len(texts), E): the embeddings of the texts, not scaled, each cut to CLIP's context."""
        return self._embed_chunks([chunk_ids(ids, self.context_length, "bos_eos")[0] for ids in self._ids(texts)])

    @torch.no_grad()
    def embed_sequences(self, texts: Sequence[str]) -> list[Tensor]:
        """Return (M, L, E) of each text: all L positions of CLIP's context, of each of its M segments, not scaled.

        Start, end and what pads are among them, as in EADP's release.
        """
        chunks = [chunk_ids(ids, self.context_length, self.text_chunking) for ids in self._ids(texts)]
        flat = [chunk for text_chunks in chunks for chunk in text_chunks]
        ids, mask = _padded(flat, len(flat), self.context_length), _real(flat, self.context_length)
        if self._device.type == "cpu":
            rows = self._encode_positions(ids, mask)[0]
        else:
            more = _rows(len(flat)) - len(flat)
            given = {"ids": pad(ids, (0, 0, 0, more)), "mask": pad(mask, (0, 0, 0, more), value=1)}
            given = {name: value.to(self._device, non_blocking=True) for name, value in given.items()}
            key = ("positions of CLIP's text side", self.weights["projection"].weight.data_ptr())
            rows = self.run(key, self._encode_positions, given)[0][: len(flat)]
        return [own.clone() for own in rows.split([len(parts) for parts in chunks])]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer([encodable(text) for text in texts], verbose=False)["input_ids"]

    def _embed_chunks(self, chunks: list[list[int]]) -> Tensor:
        """Return (len(chunks), E): what CLIP makes of each list of at most as many token ids as it can read."""
        if self._device.type == "cpu":
            ids = _padded(chunks, len(chunks), self.context_length)
            return self._encode(ids, _real(chunks, self.context_length))[0]
        width = next((width for width in WIDTHS if width >= max(map(len, chunks))), self.context_length)
        rows = _rows(len(chunks))
        ids = _padded(chunks, rows, min(width, self.context_length)).to(self._device, non_blocking=True)
        key = ("CLIP's text side", self.weights["projection"].weight.data_ptr())
        return self.run(key, self._encode, {"ids": ids})[0][: len(chunks)]

    def _encode(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor]:
        """Embed rows of ids (R, L): (R, E). What pads stands behind each text, where no token looks at it."""
        text, causal = self.weights["text"], mask
        if mask is None and text.config._attn_implementation == "sdpa":  # the same kernel, captured or not
            causal = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
        pooled = text(input_ids=ids, attention_mask=causal).pooler_output
        if mask is None:
            return (self.weights["text_projection"](pooled),)
        # Row by row: a product of few rows rounds by their number, and a text must not depend on its company.
        return (torch.stack([self.weights["text_projection"](row) for row in pooled]),)

    def _encode_positions(self, ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Embed every position of rows of ids (R, L), of which ``mask`` says which pad: (R, L, E)."""
        text, seen = self.weights["text"], mask
        if text.config._attn_implementation in ("sdpa", "eager"):  # nothing looks whether there is padding at all
            causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
            hidden = ~(causal & mask.bool()[:, None, None])  # (R, 1, L, L)
            seen = torch.zeros(hidden.shape, device=ids.device).masked_fill(hidden, torch.finfo(torch.float32).min)
        states = text(input_ids=ids, attention_mask=seen).last_hidden_state
        if ids.device.type != "cpu":
            return (self.weights["text_projection"](states),)
        return (torch.stack([self.weights["text_projection"](row) for row in states]),)


def _rows(chunks: int) -> int:
    """How many rows so many chunks take on a device that launches."""
    return next((rows for rows in ROWS if rows >= chunks), -(-chunks // ROWS[-1]) * ROWS[-1])


def _real(chunks: list[list[int]], width: int) -> Tensor:
    """Which of so many columns hold ids, 1, and which pad, 0: (len(chunks), width)."""
    return (torch.arange(width) < torch.tensor([[len(chunk)] for chunk in chunks])).long()


def _padded(chunks: list[list[int]], rows: int, width: int) -> Tensor:
    """Stack ids, (rows, width); id 0 pads, as in the releases."""
    chunks = [*chunks, *([[]] * (rows - len(chunks)))]
    return torch.tensor([chunk + [0] * (width - len(chunk)) for chunk in chunks])


def call(key: Hashable, function: Callable[..., tuple[Tensor]], arguments: Mapping[str, Tensor]) -> tuple[Tensor]:
    """Call a function as it is, whatever ``key`` it has: how a pass runs that is not replayed."""
    return function(**arguments)
