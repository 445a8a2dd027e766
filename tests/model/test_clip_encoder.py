"""The vision tower: LLaVA's features, and each cue against the long way of computing it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModel, LlamaConfig

from llava.model.multimodal_encoder import clip_encoder
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.clip_relevance import chunk_ids, unit

from .conftest import E2E

BOTH = frozenset({"cls_attention", "relevance"})
QUESTION = "What color is the large shape?"


def build_tower(folder, select_layer: int = -2, select_feature: str = "patch", **options) -> CLIPVisionTower:
    config = LlamaConfig(mm_vision_select_layer=select_layer, mm_vision_select_feature=select_feature)
    tower = CLIPVisionTower(str(folder), config, delay_load=True)
    tower.load_model(text_chunking="release", **options)
    return tower


@pytest.fixture(scope="module")
def tower(clip_folder) -> CLIPVisionTower:
    return build_tower(clip_folder)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def eager_outputs(folder, pixels):
    model = CLIPVisionModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        return model(pixels, output_hidden_states=True, output_attentions=True)


@pytest.mark.parametrize("select_layer", [-1, -2, -3, 2])
@pytest.mark.parametrize("select_feature", ["patch", "cls_patch"])
def test_features_are_the_selected_hidden_state(clip_folder, pixels, select_layer, select_feature):
    features = build_tower(clip_folder, select_layer, select_feature)(pixels)
    hidden = eager_outputs(clip_folder, pixels).hidden_states[select_layer]
    torch.testing.assert_close(features, hidden if select_feature == "cls_patch" else hidden[:, 1:])


@pytest.mark.parametrize("select_layer", [-1, -2, -3])
def test_cls_attention_is_the_row_of_the_eager_map(clip_folder, pixels, select_layer):
    _, cues = build_tower(clip_folder, select_layer).cues(pixels, BOTH, [QUESTION] * 5)
    block = select_layer + 4  # hidden state -1 is the output of the last of four blocks
    rows = eager_outputs(clip_folder, pixels).attentions[block][:, :, 0, 1:].mean(dim=1)
    torch.testing.assert_close(cues["cls_attention"], rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_cls_attention_is_the_row_of_the_eager_map_where_logits_are_extreme(backend):
    folder = E2E / "checkpoints" / "clip"
    pixels = torch.randn(2, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    _, cues = build_tower(folder, attn_implementation=backend).cues(pixels, frozenset({"cls_attention"}))
    rows = eager_outputs(folder, pixels).attentions[-2][:, :, 0, 1:].mean(dim=1)
    torch.testing.assert_close(cues["cls_attention"], rows, rtol=0.01, atol=1e-7)


def test_blocks_after_the_selected_one_never_run(clip_folder, pixels):
    tower = build_tower(clip_folder)

    def refuse(*_):
        raise AssertionError("the last block ran")

    tower.vision_tower.encoder.layers[-1].register_forward_hook(refuse)
    tower(pixels)
    tower.cues(pixels, BOTH, [QUESTION] * 5)


def test_relevance_is_the_negated_cosine_in_clips_joint_space(clip_folder, tower, pixels):
    _, cues = tower.cues(pixels, BOTH, [QUESTION] * 5)
    clip = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(QUESTION, return_tensors="pt")
    with torch.no_grad():
        text = clip.text_projection(clip.text_model(**tokens).pooler_output)
        hidden = clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        patches = clip.visual_projection(clip.vision_model.post_layernorm(hidden[:, 1:]))
    expected = -torch.nn.functional.cosine_similarity(patches, text.unsqueeze(0), dim=-1)
    torch.testing.assert_close(cues["relevance"], expected, atol=1e-5, rtol=0)


def test_an_image_gets_the_same_bits_alone_and_in_a_batch(tower, pixels):
    texts = [f"Is there a circle? {index}" * (index + 1) for index in range(5)]
    features, cues = tower.cues(pixels, BOTH, texts)
    for index in range(5):
        alone, alone_cues = tower.cues(pixels[index : index + 1], BOTH, texts[index : index + 1])
        assert torch.equal(alone[0], features[index])
        for name in BOTH:
            assert torch.equal(alone_cues[name][0], cues[name][index]), name


def test_more_tiles_than_one_call_takes_give_the_same_bits(tower, pixels, monkeypatch):
    features, cues = tower.cues(pixels, BOTH, [QUESTION] * 5)
    monkeypatch.setattr(clip_encoder, "TILES_PER_CALL", 2)
    parts, part_cues = tower.cues(pixels, BOTH, [QUESTION] * 5)
    assert torch.equal(features, parts)
    assert all(torch.equal(cues[name], part_cues[name]) for name in BOTH)


def test_a_question_is_embedded_once_for_all_images_and_calls(clip_folder, pixels, monkeypatch):
    tower = build_tower(clip_folder)
    embedded = []
    embed_texts = tower.relevance.embed_texts
    monkeypatch.setattr(tower.relevance, "embed_texts", lambda texts: embedded.extend(texts) or embed_texts(texts))
    first = tower.cues(pixels, BOTH, ["a", "b", "a", "b", "a"])[1]["relevance"]
    second = tower.cues(pixels, BOTH, ["a", "c", "a", "c", "a"])[1]["relevance"]
    assert embedded == ["a", "b", "c"]
    assert torch.equal(first[0], second[0])


def test_no_attention_maps_are_ever_held():
    tower = build_tower(E2E / "checkpoints" / "clip")
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
            return out

    with Watch():
        tower.cues(torch.randn(1, 3, 336, 336), BOTH, [QUESTION])
    assert max(sizes) < 2 * 577 * 577  # the tower has four heads; the largest tensor is the image


def test_only_the_cues_asked_for_are_computed(tower, pixels):
    assert tower.cues(pixels, frozenset())[1] == {}
    assert set(tower.cues(pixels, frozenset({"cls_attention"}), [QUESTION] * 5)[1]) == {"cls_attention"}
    assert set(tower.cues(pixels, frozenset({"relevance"}), [QUESTION] * 5)[1]) == {"relevance"}


def test_without_any_text_there_is_no_relevance(tower, pixels):
    assert tower.cues(pixels, BOTH, None)[1].keys() == {"cls_attention"}
    assert tower.cues(pixels, BOTH, [None] * 5)[1].keys() == {"cls_attention"}


def test_the_text_side_stays_out_of_the_state_dict(tower):
    assert not any("text" in name or "projection" in name for name in tower.state_dict())


def test_cues_without_the_text_side_say_how_to_load_it(clip_folder, pixels):
    config = LlamaConfig(mm_vision_select_layer=-2)
    with pytest.raises(RuntimeError, match="load_text_tower"):
        CLIPVisionTower(str(clip_folder), config).cues(pixels, BOTH, [QUESTION] * 5)


def test_a_list_of_images_gives_a_list_of_features(tower, pixels):
    listed = tower(list(pixels[:2]))
    assert [tuple(features.shape) for features in listed] == [(1, 16, 48)] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cues_are_float32_whatever_the_tower_computes_in(clip_folder, pixels, dtype):
    features, cues = build_tower(clip_folder, dtype=dtype).cues(pixels.to(dtype), BOTH, [QUESTION] * 5)
    assert features.dtype == dtype
    assert {cue.dtype for cue in cues.values()} == {torch.float32}
    assert all(cue.isfinite().all() for cue in cues.values())


def test_release_chunks_cut_without_start_and_end_tokens():
    assert chunk_ids([1, 5, 6, 7, 2], length=3, chunking="release") == [[1, 5, 6], [7, 2]]


def test_bos_eos_chunks_are_each_wrapped():
    assert chunk_ids([1, 5, 6, 7, 2], length=4, chunking="bos_eos") == [[1, 5, 6, 2], [1, 7, 2]]
    assert chunk_ids([1, 2], length=4, chunking="bos_eos") == [[1, 2]]


def test_a_long_text_is_the_mean_of_its_chunks(tower, clip_folder):
    text = "a red circle and a blue square " * 12
    clip = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    ids = CLIPTokenizer.from_pretrained(clip_folder)(text)["input_ids"]
    assert len(ids) > 2 * 77
    rows = torch.zeros(-(-len(ids) // 77), 77, dtype=torch.long)
    rows.flatten()[: len(ids)] = torch.tensor(ids)
    mask = (torch.arange(rows.numel()) < len(ids)).long().view_as(rows)
    with torch.no_grad():
        embeds = clip.text_projection(clip.text_model(input_ids=rows, attention_mask=mask).pooler_output)
    torch.testing.assert_close(tower.relevance.embed_texts([text])[0], unit(embeds).mean(dim=0), atol=1e-6, rtol=0)


def test_a_layer_that_the_tower_does_not_have_is_an_error(clip_folder, pixels):
    with pytest.raises(ValueError, match="the tower has 4 blocks"):
        build_tower(clip_folder, select_layer=-7)(pixels)
