"""The vision tower: LLaVA's features, and each cue against the long way of computing it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModel, LlamaConfig

from llava.model.multimodal_encoder import clip_encoder
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.selecting.relevance import chunk_ids, unit

from .conftest import E2E

BOTH = frozenset({"cls_attention", "relevance"})
ALL = BOTH | {"keys", "last_attention", "last_keys", "dot_relevance"}
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
    tower.cues(pixels, ALL, [QUESTION] * 5)


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


@pytest.fixture(scope="module")
def plain_clip(clip_folder):
    return CLIPModel.from_pretrained(clip_folder, dtype=torch.float32, attn_implementation="eager").eval()


def projections(plain_clip, pixels, block):
    """Queries and keys (5, 1 + N, C) of a block, by hooks while CLIP runs as it is."""
    attention, seen = plain_clip.vision_model.encoder.layers[block].self_attn, {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
        for name, part in {"query": attention.q_proj, "key": attention.k_proj}.items()
    ]
    with torch.no_grad():
        plain_clip.vision_model(pixels)
    for hook in hooks:
        hook.remove()
    return seen["query"], seen["key"]


@pytest.mark.parametrize("select_layer", [-1, -2, -3, 2])
def test_keys_are_those_of_the_selected_block_averaged_over_heads(clip_folder, plain_clip, pixels, select_layer):
    _, cues = build_tower(clip_folder, select_layer).cues(pixels, ALL, [QUESTION] * 5)
    _, keys = projections(plain_clip, pixels, {-1: 3, -2: 2, -3: 1, 2: 1}[select_layer])
    heads = keys[:, 1:].split(12, dim=-1)  # four of them, 48 wide in all
    torch.testing.assert_close(cues["keys"], sum(heads) / 4, atol=1e-5, rtol=0)


@pytest.mark.parametrize("select_layer", [-1, -2, -4, 0])
def test_attention_and_keys_of_the_last_block_are_of_one_head_whatever_layer_is_selected(
    clip_folder, plain_clip, pixels, select_layer
):
    needs = frozenset({"last_attention", "last_keys"})
    features, cues = build_tower(clip_folder, select_layer).cues(pixels, needs)
    query, key = projections(plain_clip, pixels, 3)
    rows = (query @ key.mT * 48**-0.5).softmax(dim=-1)[:, 0, 1:]
    torch.testing.assert_close(cues["last_attention"], rows, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(cues["last_keys"], key[:, 1:], atol=1e-5, rtol=1e-4)
    assert torch.equal(features, build_tower(clip_folder, select_layer)(pixels))


def test_dot_relevance_is_the_negated_product_of_the_raw_embeddings(clip_folder, plain_clip, tower, pixels):
    _, cues = tower.cues(pixels, ALL, [QUESTION] * 5)
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(QUESTION, return_tensors="pt")
    with torch.no_grad():
        text = plain_clip.text_projection(plain_clip.text_model(**tokens).pooler_output)[0]
        hidden = plain_clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        patches = plain_clip.visual_projection(plain_clip.vision_model.post_layernorm(hidden[:, 1:]))
    torch.testing.assert_close(cues["dot_relevance"], -patches @ text, atol=1e-4, rtol=1e-5)


def test_of_a_long_text_the_dot_product_sees_the_beginning(clip_folder, plain_clip, tower):
    text = "a red circle and a blue square " * 12
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    tokens = tokenizer(text, truncation=True, max_length=77, return_tensors="pt")
    assert tokens.input_ids.shape == (1, 77) and len(tokenizer(text).input_ids) > 77
    with torch.no_grad():
        expected = plain_clip.text_projection(plain_clip.text_model(**tokens).pooler_output)
    torch.testing.assert_close(tower.relevance.embed_beginnings([text, QUESTION])[:1], expected, atol=1e-5, rtol=1e-5)


def test_the_two_kinds_of_relevance_do_not_share_what_they_remember(clip_folder, pixels):
    tower, kinds = build_tower(clip_folder), frozenset({"relevance", "dot_relevance"})
    fresh = build_tower(clip_folder).cues(pixels, frozenset({"dot_relevance"}), [QUESTION] * 5)[1]
    for _ in range(2):
        again = tower.cues(pixels, kinds, [QUESTION] * 5)[1]
        assert torch.equal(again["dot_relevance"], fresh["dot_relevance"])


@pytest.mark.parametrize("cue", ["cls_attention", "keys"])
def test_the_embeddings_have_no_cue_of_a_block(clip_folder, pixels, cue):
    with pytest.raises(ValueError, match=f"mm_vision_select_layer 0 selects the embeddings: no {cue}"):
        build_tower(clip_folder, select_layer=0).cues(pixels, frozenset({cue}))


def test_an_image_gets_the_same_bits_alone_and_in_a_batch(tower, pixels):
    texts = [f"Is there a circle? {index}" * (index + 1) for index in range(5)]
    features, cues = tower.cues(pixels, ALL, texts)
    for index in range(5):
        alone, alone_cues = tower.cues(pixels[index : index + 1], ALL, texts[index : index + 1])
        assert torch.equal(alone[0], features[index])
        for name in ALL:
            assert torch.equal(alone_cues[name][0], cues[name][index]), name


def test_more_tiles_than_one_call_takes_give_the_same_bits(tower, pixels, monkeypatch):
    features, cues = tower.cues(pixels, ALL, [QUESTION] * 5)
    monkeypatch.setattr(clip_encoder, "TILES_PER_CALL", 2)
    parts, part_cues = tower.cues(pixels, ALL, [QUESTION] * 5)
    assert torch.equal(features, parts)
    assert all(torch.equal(cues[name], part_cues[name]) for name in ALL)


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
        tower.cues(torch.randn(1, 3, 336, 336), ALL, [QUESTION])
    assert max(sizes) < 2 * 577 * 577  # the tower has four heads; the largest tensor is the image


def test_only_the_cues_asked_for_are_computed(tower, pixels):
    assert tower.cues(pixels, frozenset())[1] == {}
    for name in ALL:
        assert set(tower.cues(pixels, frozenset({name}), [QUESTION] * 5)[1]) == {name}


def test_without_any_text_there_is_no_relevance(tower, pixels):
    assert tower.cues(pixels, ALL, None)[1].keys() == ALL - {"relevance", "dot_relevance"}
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
    features, cues = build_tower(clip_folder, dtype=dtype).cues(pixels.to(dtype), ALL, [QUESTION] * 5)
    assert features.dtype == cues.pop("last_keys").dtype == dtype
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
