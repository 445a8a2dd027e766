"""How relevant each patch is to the question, in CLIP's joint space of images and texts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

TEXT_CHUNKING = ("release", "bos_eos")
REMEMBERED_TEXTS = 1024


def unit(x: Tensor) -> Tensor:
    """Scale the last dimension to length 1; a zero vector stays zero."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


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

    A plain object, not a module: the weights belong to CLIP and must not end up in LLaVA's checkpoints.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, text_chunking: str = "release"):
        if text_chunking not in TEXT_CHUNKING:
            raise ValueError(f"text_chunking {text_chunking!r} is not one of {', '.join(TEXT_CHUNKING)}")
        self.tokenizer = tokenizer
        self.text_chunking = text_chunking
        self.context_length = clip.config.text_config.max_position_embeddings
        self.weights = nn.ModuleDict(
            {"text": clip.text_model, "text_projection": clip.text_projection, "projection": clip.visual_projection}
        )
        self.weights.float().eval().requires_grad_(False)
        self._embeddings: dict[str, Tensor] = {}

    def __call__(self, patches: Tensor, texts: Sequence[str]) -> Tensor:
        """Return the negated cosine of every patch to its tile's text, higher is more relevant.

        CLIP's patches point away from the texts that describe them, hence the sign (as in CDPruner and TRIM).

        Args:
            patches: (B, N, C) outputs of the vision tower after its final layer norm.
            texts: B questions.

        Returns:
            float32 (B, N)
        """
        self.weights.to(patches.device)
        with torch.autocast(patches.device.type, enabled=False):
            embeds = unit(self.weights["projection"](patches.float()))  # (B, N, E)
            text = torch.stack(self._remembered(texts))  # (B, E)
            return -(embeds * text.unsqueeze(1)).sum(dim=-1)

    def _remembered(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the embedding of every text, each computed once however many images share its question."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        known = self._embeddings | dict(zip(unknown, self.embed_texts(unknown) if unknown else [], strict=True))
        device = next(self.weights.parameters()).device
        self._embeddings = dict(list(known.items())[-REMEMBERED_TEXTS:])
        return [known[text].to(device) for text in texts]

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (len(texts), E): the mean of the unit embeddings of each text's chunks."""
        chunks = [
            chunk_ids(self.tokenizer(text, verbose=False)["input_ids"], self.context_length, self.text_chunking)
            for text in texts
        ]
        rows = [torch.tensor(chunk) for text_chunks in chunks for chunk in text_chunks]
        device = next(self.weights.parameters()).device
        ids = torch.zeros(len(rows), self.context_length, dtype=torch.long)  # id 0 pads, as in the releases
        mask = torch.zeros_like(ids)
        for row, chunk in enumerate(rows):
            ids[row, : len(chunk)], mask[row, : len(chunk)] = chunk, 1
        pooled = self.weights["text"](input_ids=ids.to(device), attention_mask=mask.to(device)).pooler_output
        # Row by row: a product of few rows rounds by their number, and a text must not depend on its company.
        embeds = unit(torch.stack([self.weights["text_projection"](row) for row in pooled]))
        return torch.stack([part.mean(dim=0) for part in embeds.split([len(parts) for parts in chunks])])
