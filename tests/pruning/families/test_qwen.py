"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: attention that patches receive, told to pruners as that of their tokens."""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llava.pruning import prune
from llava.pruning.families import family_of
from llava.selecting import attention

QWENS = ["qwen2", "qwen2_5", "qwen3"]


def encode(tiny, modality):
    method = getattr(tiny.model.model, f"get_{modality}_features")
    pixels = tiny.inputs["pixel_values" if modality == "image" else "pixel_values_videos"]
    with torch.no_grad():
        return method(pixels, tiny.inputs[f"{modality}_grid_thw"])


def eager_maps(tiny, modality, block, monkeypatch):
    """The attention of every image or frame in a block (H, n, n), from Transformers' own eager function."""
    module = sys.modules[type(block.attn).__module__]
    eager, maps = module.eager_attention_forward, []

    def noting(attn, *args, **kwargs):
        output, weights = eager(attn, *args, **kwargs)
        if attn is block.attn:
            maps.append(weights[0])
        return output, weights

    with monkeypatch.context() as patch:
        patch.setattr(module, "eager_attention_forward", noting)
        tiny.model.set_attn_implementation("eager")
        encode(tiny, modality)
    tiny.model.set_attn_implementation("sdpa")
    return maps


def raster_of_windows(frames, rows, columns, side):
    """Where each token of an image stands in raster order, counted window by window."""
    order = []
    for frame in range(frames):
        for top in range(0, rows, side):
            for left in range(0, columns, side):
                for row in range(top, min(top + side, rows)):
                    order += [(frame * rows + row) * columns + c for c in range(left, min(left + side, columns))]
    return order


def in_raster_order(tiny, name, modality, of_tokens):
    """What the encoder has of each token, image by image, in the order in which they are read."""
    grids = tiny.inputs[f"{modality}_grid_thw"].tolist()
    if name == "qwen2_5":
        start, raster = 0, torch.empty_like(of_tokens)
        for frames, rows, columns in grids:
            order = raster_of_windows(frames, rows // 2, columns // 2, side=2)
            raster[torch.tensor(order) + start] = of_tokens[start : start + len(order)]
            start += len(order)
        of_tokens = raster
    return of_tokens.split([frames * rows * columns // 4 for frames, rows, columns in grids])


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("name", QWENS)
def test_pruners_are_told_the_mean_of_eager_maps(tiny_of, spy, monkeypatch, name, modality):
    tiny = tiny_of(f"{name}_{modality}s")
    blocks = tiny.model.model.visual.blocks
    block = blocks[1] if name == "qwen2_5" else blocks[2]  # the last that attends to a whole image
    of_patches = [heads.mean(dim=(0, 1)) for heads in eager_maps(tiny, modality, block, monkeypatch)]
    of_tokens = torch.cat(of_patches).unflatten(0, (-1, 4)).mean(dim=1)
    grids = tiny.inputs[f"{modality}_grid_thw"].tolist()
    expected = in_raster_order(tiny, name, modality, of_tokens)
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
    told = {cues.shape[1]: cues.cls_attention for cues in spy.told}
    for one, (frames, rows, columns) in zip(expected, grids, strict=True):
        torch.testing.assert_close(told[rows * columns // 4], one.view(frames, -1), atol=1e-6, rtol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        made = output if isinstance(output, (tuple, list)) else [output]
        self.numel = max([self.numel, *(tensor.numel() for tensor in made if isinstance(tensor, torch.Tensor))])
        return output


@pytest.mark.parametrize("name", QWENS)
def test_no_map_of_all_patches_is_made(tiny_of, spy, monkeypatch, name):
    monkeypatch.setattr(attention, "LOGITS_PER_CHUNK", 2**14)
    tiny = tiny_of(f"{name}_images")
    side = 24
    tiny.inputs |= {"pixel_values": torch.randn(side**2, 24), "image_grid_thw": torch.tensor([[1, side, side]])}
    family = family_of(tiny.model)(tiny.model)
    with Largest() as largest, family.recording("image", spy.needs) as tape:
        encode(tiny, "image")
    assert tape["cls_attention"].shape == (side**2,)
    assert largest.numel < side**4 / 3


@pytest.mark.parametrize("name", QWENS)
def test_features_are_the_embeddings_and_relevance_is_their_cosine_to_the_text(tiny_of, spy, name):
    tiny = tiny_of(f"{name}_images")
    merged = encode(tiny, "image").pooler_output
    embed = tiny.model.get_input_embeddings()
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
    told = {cues.shape[1]: cues for cues in spy.told}
    for tokens, prompt in zip(merged, [0, 0, 1], strict=True):
        cues = told[len(tokens)]
        assert torch.equal(cues.features[0], tokens)
        assert torch.equal(cues.embeds[0], tokens)
        ids, mask = (tiny.inputs[name][prompt] for name in ("input_ids", "attention_mask"))
        text = embed(ids[mask.bool() & (ids < 90) | (ids > 91)]).mean(dim=0)
        expected = torch.cosine_similarity(tokens, text.unsqueeze(0))
        torch.testing.assert_close(cues.relevance[0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", QWENS)
def test_a_budget_counts_for_each_frame_of_a_video_or_for_all(tiny_of, name):
    tiny = tiny_of(f"{name}_videos")  # of 2 frames of 6 tokens, and of 3 of 2
    frames = [[6, 6], [2, 2, 2]]
    with prune(tiny.model, "cls_topk", visual_token_num=1) as record, torch.no_grad():
        tiny.model(**tiny.inputs)
    assert record.tokens_before == [sum(video) for video in frames]
    for video, positions in zip(frames, record.keep, strict=True):
        assert [int(position) // video[0] for position in positions] == list(range(len(video)))
    with prune(tiny.model, "divprune", visual_token_num=1, budget_scope="image") as record, torch.no_grad():
        tiny.model(**tiny.inputs)
    assert record.visual_tokens == [2, 3]


def test_the_release_s_rule_for_qwen_is_kept_to_from_the_model_on(tiny_of, spy):
    tiny = tiny_of("qwen2_5_images")
    with torch.no_grad():
        with prune(tiny.model, spy):
            tiny.model(**tiny.inputs)
        with prune(tiny.model, "mfpruner", keep_ratio=0.5, cues="qwen_release") as record:
            tiny.model(**tiny.inputs)
    told = {cues.shape[1]: cues for cues in spy.told}
    for kept, tokens in zip(record.keep, record.tokens_before, strict=True):
        cues, budget = told[tokens], int(tokens * 0.5)
        unit = torch.nn.functional.normalize(cues.embeds[0].double(), dim=1)
        unlike = 1 - (unit @ unit.T).fill_diagonal_(0).sum(dim=1) / tokens
        both = set(unlike.topk(budget).indices.tolist()) & set(cues.cls_attention[0].topk(budget).indices.tolist())
        rest = [token for token in cues.relevance[0].argsort(descending=True).tolist() if token not in both]
        assert kept.tolist() == sorted([*both, *rest[: budget - len(both)]])


@pytest.mark.parametrize("name", QWENS)
@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"positions": "compact"}, "positions 'compact' is not one of original"),
        ({"attention": "cls"}, r"received: its encoder has no \[CLS\] token"),
        ({"relevance": "clip_text", "text_tower": "clip"}, 'needs a CLIP encoder .* use relevance="llm_text"'),
    ],
)
def test_what_qwen_does_not_have_is_named(tiny_of, name, wrong, message):
    with pytest.raises(ValueError, match=message):
        prune(tiny_of(f"{name}_images").model, "mfpruner", visual_token_num=2, **wrong)
