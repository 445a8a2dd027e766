"""Attention that is received, and CLIP's joint space, each against the long way of computing it."""

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from .test_clip_encoder import build_tower, eager_outputs

RECEIVED = frozenset({"object_attention", "deep_attention"})
JOINT = frozenset({"joint_embeds", "text_sequence"})
SHORT, LONG = "What color is the large shape?", "a red circle and a blue square " * 5


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tower(clip_folder):
    return build_tower(clip_folder)


@pytest.fixture(scope="module")
def plain_clip(clip_folder):
    return CLIPModel.from_pretrained(clip_folder, dtype=torch.float32, attn_implementation="eager").eval()


def received_of(maps: torch.Tensor) -> torch.Tensor:
    """(B, H, 1 + N, 1 + N), a row for each query -> (B, N)."""
    return maps.mean(dim=(1, 2))[:, 1:]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("select_layer", [-1, -2, -3, 2])
@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_received_attention_is_the_mean_of_the_eager_map(clip_folder, pixels, select_layer, layer, backend):
    tower = build_tower(clip_folder, select_layer, attn_implementation=backend)
    features, cues = tower.cues(pixels, RECEIVED, object_layer=layer)
    maps = eager_outputs(clip_folder, pixels).attentions
    deep = {-1: 3, -2: 2, -3: 1, 2: 1}[select_layer]
    assert cues.keys() == RECEIVED and torch.equal(features, tower(pixels))
    torch.testing.assert_close(cues["object_attention"], received_of(maps[layer - 1]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(cues["deep_attention"], received_of(maps[deep]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_received_attention_does_not_depend_on_company(clip_folder, pixels, dtype):
    tower = build_tower(clip_folder, dtype=dtype)
    _, together = tower.cues(pixels, RECEIVED, object_layer=2)
    for name in RECEIVED:
        assert together[name].dtype == torch.float32
        alone = torch.cat([tower.cues(tile[None], RECEIVED, object_layer=2)[1][name] for tile in pixels])
        assert torch.equal(together[name], alone)


def test_all_cues_of_blocks_together_are_what_each_is_alone(clip_folder, pixels):
    tower = build_tower(clip_folder)
    names = RECEIVED | {"cls_attention", "keys", "last_attention", "last_keys"}
    _, together = tower.cues(pixels, names, object_layer=4)
    assert together.keys() == names
    for name in names:
        assert torch.equal(together[name], tower.cues(pixels, frozenset({name}), object_layer=4)[1][name])


def test_no_block_runs_that_no_cue_needs(clip_folder, pixels):
    tower = build_tower(clip_folder, -3)

    def refuse(*_):
        raise AssertionError("a block ran whose output nobody reads")

    for block in tower.vision_tower.encoder.layers[2:]:
        block.register_forward_hook(refuse)
    tower.cues(pixels, RECEIVED, object_layer=1)
    tower.cues(pixels, RECEIVED, object_layer=3)  # its queries and keys are read, it does not run


@pytest.mark.parametrize("layer", [0, 5, 9])
def test_a_block_that_is_not_there_is_refused(tower, pixels, layer):
    message = f"object_attention of block {layer}: the vision tower has blocks 1 to 4"
    with pytest.raises(ValueError, match=message):
        tower.cues(pixels, RECEIVED, object_layer=layer)


def test_embeddings_have_no_attention(clip_folder, pixels):
    with pytest.raises(ValueError, match="mm_vision_select_layer 0 selects the embeddings: no deep_attention"):
        build_tower(clip_folder, 0).cues(pixels, RECEIVED)
    _, cues = build_tower(clip_folder, 0).cues(pixels, frozenset({"object_attention"}), object_layer=1)
    assert cues.keys() == {"object_attention"}


def test_joint_embeds_are_clips_projection_of_the_patches(plain_clip, tower, pixels):
    _, cues = tower.cues(pixels, JOINT, [SHORT] * 5)
    with torch.no_grad():
        hidden = plain_clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        expected = plain_clip.visual_projection(plain_clip.vision_model.post_layernorm(hidden[:, 1:]))
    torch.testing.assert_close(cues["joint_embeds"], expected, atol=1e-5, rtol=1e-5)


def positions(plain_clip, clip_folder, text: str) -> torch.Tensor:
    """(M, 77, E): every position of each segment, cut as the releases do, of a mask that hides what pads."""
    ids = CLIPTokenizer.from_pretrained(clip_folder)(text, verbose=False).input_ids
    segments = -(-len(ids) // 77)
    padded = torch.tensor(ids + [0] * (segments * 77 - len(ids))).view(segments, 77)
    mask = (torch.arange(segments * 77) < len(ids)).long().view(segments, 77)
    with torch.no_grad():
        states = plain_clip.text_model(input_ids=padded, attention_mask=mask).last_hidden_state
        return plain_clip.text_projection(states)


@pytest.mark.parametrize(("text", "segments"), [("", 1), (SHORT, 1), (LONG, 2)])
def test_a_text_sequence_is_every_position_of_each_segment(plain_clip, clip_folder, tower, pixels, text, segments):
    _, cues = tower.cues(pixels[:1], JOINT, [text])
    expected = positions(plain_clip, clip_folder, text)
    assert cues["text_sequence"].shape == (1, segments, 77, 24)
    torch.testing.assert_close(cues["text_sequence"][0], expected, atol=1e-5, rtol=1e-5)


def test_shorter_texts_are_filled_up_by_segments_of_zeros(tower, pixels):
    sequences = tower.cues(pixels[:2], JOINT, [SHORT, LONG])[1]["text_sequence"]
    assert sequences.shape == (2, 2, 77, 24) and sequences.dtype == torch.float32
    assert not sequences[0, 1].any() and sequences[:, 0].abs().sum(dim=-1).gt(0).all()


def test_a_texts_positions_do_not_depend_on_its_company(clip_folder, pixels):
    texts = [SHORT, LONG, "How many?", "a " * 75, SHORT]
    together = build_tower(clip_folder).cues(pixels, JOINT, texts)[1]["text_sequence"]
    for text, found in zip(texts, together, strict=True):
        alone = build_tower(clip_folder).cues(pixels[:1], JOINT, [text])[1]["text_sequence"][0]
        assert torch.equal(found[: len(alone)], alone)


def test_segments_have_a_beginning_and_an_end_of_their_own_where_that_is_asked_for(tower, clip_folder):
    relevance = build_tower(clip_folder).relevance
    relevance.text_chunking = "bos_eos"
    found, before = relevance.embed_sequences([LONG])[0], tower.relevance.embed_sequences([LONG])[0]
    assert len(found) == len(before) and not torch.equal(found[0, -1], before[0, -1])
    torch.testing.assert_close(found[0, :76], before[0, :76])  # the last of 77 is the end


def test_a_sequence_is_computed_once(clip_folder, pixels):
    tower, rows = build_tower(clip_folder), []
    text_model = tower.relevance.weights["text"]
    text_model.register_forward_hook(lambda *call: rows.append(len(call[-1][0])))
    first = tower.cues(pixels, JOINT, [SHORT] * 4 + [LONG])[1]
    again = tower.cues(pixels, JOINT, [SHORT] * 4 + [LONG])[1]
    assert rows == [1 + 2] and torch.equal(first["text_sequence"], again["text_sequence"])


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_the_text_side_of_a_tower_in_half_precision_computes_in_float32(clip_folder, pixels, backend):
    tower = build_tower(clip_folder, dtype=torch.bfloat16, attn_implementation=backend)
    found = tower.cues(pixels, JOINT, [LONG] * 5)[1]
    assert found["joint_embeds"].dtype == found["text_sequence"].dtype == torch.float32
    rounded = CLIPModel.from_pretrained(clip_folder, dtype=torch.bfloat16).float().eval()
    torch.testing.assert_close(found["text_sequence"][0], positions(rounded, clip_folder, LONG), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("texts", "rows"), [(1, 1), (2, 4), (17, 32)])
def test_on_a_device_that_launches_sequences_have_few_forms_and_nothing_is_read_back(clip_folder, texts, rows):
    relevance, shapes = build_tower(clip_folder).relevance, []
    relevance.weights.to("meta")
    relevance.weights["text"].register_forward_hook(lambda *call: shapes.append(tuple(call[-1][0].shape[:2])))
    sequences = relevance.embed({"text_sequence"}, [f"{number} red" for number in range(texts)], torch.device("meta"))
    assert sequences["text_sequence"].shape == (texts, 1, 77, 24) and shapes == [(rows, 77)]
