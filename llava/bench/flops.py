"""What a prompt costs by counting, under each published convention and truly. Plain Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama decoder with full attention heads, as Vicuna has them."""

    layers: int
    width: int
    ffn: int
    heads: int


SHAPES = {"7b": Shape(32, 4096, 11008, 32), "13b": Shape(40, 5120, 13824, 40)}
TEXT_TOKENS = 64
CLIP_LAYERS, CLIP_WIDTH, CLIP_FFN, CLIP_TOKENS = 24, 1024, 4096, 577
CLIP_TILES = 5
CONVENTIONS = {
    "divprune": "MACs, a feed-forward of two matrices, visual and text tokens (DivPrune)",
    "cdpruner": "FLOPs of the language model, visual tokens alone (CDPruner)",
    "vispruner": "the same and five CLIP tiles (VisPruner, FasterVLM)",
    "true": "FLOPs of the language model, visual and text tokens, no logits",
}


def layer_macs(shape: Shape, tokens: float, ffn_matrices: int) -> float:
    """Multiply-accumulates of one decoder layer on a prompt, attention counted over all pairs of tokens."""
    projections = 4 * tokens * shape.width**2
    attention = 2 * tokens**2 * shape.width
    return projections + attention + ffn_matrices * tokens * shape.width * shape.ffn


def prefill_macs_two_matrices(shape: Shape, tokens: float) -> float:
    """DivPrune's and FastV's count: a feed-forward of two matrices, though Llama's has three."""
    return shape.layers * layer_macs(shape, tokens, ffn_matrices=2)


def prefill_flops(shape: Shape, tokens: float, prune_layer: int = 0, tokens_before: float = 0) -> float:
    """Every multiplication and every addition of the decoder layers.

    Args:
        tokens: that the layers from ``prune_layer`` on see.
        tokens_before: that the layers before it see.
    """
    before = prune_layer * layer_macs(shape, tokens_before, ffn_matrices=3)
    return 2 * (before + (shape.layers - prune_layer) * layer_macs(shape, tokens, ffn_matrices=3))


def clip_flops(tiles: int, blocks: int = CLIP_LAYERS) -> float:
    """CLIP-L/14 at 336 pixels; with all its blocks, what VisPruner counts."""
    tower = Shape(CLIP_LAYERS, CLIP_WIDTH, CLIP_FFN, heads=16)
    return tiles * 2 * blocks * layer_macs(tower, CLIP_TOKENS, ffn_matrices=2)


def selection_flops(method: str, tiles: int, tokens: int, width: int, kept: int, important: int = 0) -> float:
    """The similarities that no exact selection does without, as far as is known.

    CDPruner's needs the rows of the kept tokens; DivPrune's every pair, to find the most isolated token; VisPruner's
    every pair of the tokens that are not among the ``important``; MFPruner's two products with a vector; those that
    cover, as SCOPE's, every pair.
    """
    rest = tokens - important
    return (
        tiles
        * {
            "cdpruner": 2 * kept * tokens * width,
            "divprune": tokens**2 * width,
            "vispruner": rest**2 * width,
            "mfpruner": 4 * tokens * width,
            **dict.fromkeys(("scope", "mmtok", "eadp"), tokens**2 * width),
        }[method]
    )


def tera(shape: Shape, visual: int, text: int = TEXT_TOKENS) -> dict[str, float]:
    """What one prompt costs under each of ``CONVENTIONS``, in units of 1e12."""
    counts = {
        "divprune": prefill_macs_two_matrices(shape, visual + text),
        "cdpruner": prefill_flops(shape, visual),
        "vispruner": prefill_flops(shape, visual) + clip_flops(CLIP_TILES),
        "true": prefill_flops(shape, visual + text),
    }
    return {convention: count / 1e12 for convention, count in counts.items()}


def kv_cache_mb(shape: Shape, tokens: int, bytes_per_number: int = 2) -> float:
    """Keys and values of all layers, in MiB."""
    return 2 * shape.layers * shape.width * bytes_per_number * tokens / 2**20
