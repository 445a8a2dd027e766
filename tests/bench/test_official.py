"""A user's copy of the official code: here, files of the same outline with a body of their own."""

import logging

import pytest
import torch

from llava.bench.official import official_selection
from llava.bench.select import Case, make_cues, measure_case

MOST_RELEVANT = """
import nothing_that_is_installed

class LlavaMetaForCausalLM:
    def encode_images(self, images, texts: UnknownType = None):
        image_features, image_embeds, text_embeds = self.get_model().get_vision_tower()(images, texts)
        relevance = -(image_embeds @ text_embeds.t()).mean(dim=-1)
        chosen = torch.topk(relevance, self.visual_token_num, dim=1).indices
        return self.get_model().mm_projector(image_features), chosen
"""
MOST_ATTENDED = """
class LlavaMetaForCausalLM:
    def encode_images(self, images):
        vision_tower = self.get_model().get_vision_tower()
        image_features, image_attentions = vision_tower(images)
        return torch.topk(image_attentions.mean(dim=1), self.get_visual_token_num(), dim=1).indices
"""
FIRST_OF_ALL = """
class LlavaMetaForCausalLM:
    def pairwise_cosine_similarity(self, matrix):
        unit = matrix / matrix.norm(dim=1, keepdim=True)
        return unit @ unit.t()

    def DivPrune(self, vectors, length, cosine_matrix=None, threshold_ratio=0.1):
        return torch.arange(round(threshold_ratio * length)), self.pairwise_cosine_similarity(vectors)
"""
MOST_VOTES = """
def centred(values):
    return values - values.mean()

class LlavaMetaForCausalLM:
    def get_model(self):
        raise NotImplementedError

    def compute_token_similarity(self, tokens):
        unit = tokens / tokens.norm(dim=1, keepdim=True)
        return self.mean_of(unit @ unit.t())

    @staticmethod
    def mean_of(matrix):
        return matrix.mean(dim=1)

    def encode_images(self, images, texts=None):
        image_features, image_embeds, text_embeds = self.get_model().get_vision_tower()(images, texts)
        image_features, image_attentions = image_features
        image_features = self.get_model().mm_projector(image_features)
        attention = centred(image_attentions.mean(dim=1)[0])
        relevance = centred(-(image_embeds @ text_embeds.t()).mean(dim=-1)[0])
        other = 1 - self.compute_token_similarity(image_features[0])
        return torch.stack([attention, relevance, other]), self.visual_token_num
"""


@pytest.fixture
def root(tmp_path):
    for folder, source in {"CDPruner": MOST_RELEVANT, "VisPruner": MOST_ATTENDED, "divprune": FIRST_OF_ALL}.items():
        path = tmp_path / folder / "llava" / "model" / "llava_arch.py"
        path.parent.mkdir(parents=True)
        path.write_text(source)
    return tmp_path


@pytest.fixture
def cues(cpu):
    return make_cues(Case("cdpruner", 2, 36, 16, 4), 0, cpu)


def test_the_official_function_sees_the_relevance(root, cues):
    _, chosen = official_selection(root, "cdpruner", cues, 4)()
    assert torch.equal(chosen, cues.relevance.topk(4, dim=1).indices)


def test_the_official_function_sees_the_attention(root, cues):
    assert torch.equal(official_selection(root, "vispruner", cues, 4)(), cues.cls_attention.topk(4, dim=1).indices)


def test_divprune_is_called_with_the_share_kept(root, cues):
    chosen, cosine = official_selection(root, "divprune", cues, 4)()
    assert len(chosen) == 4 and cosine.shape == (72, 72)


UNPACKINGS = {
    "later": MOST_VOTES,
    "at once": MOST_VOTES.replace("image_features, image_embeds, text_embeds =", "(a_feature, an_att), b_embed, text =")
    .replace("        image_features, image_attentions = image_features\n", "")
    .replace("mm_projector(image_features)", "mm_projector(a_feature)")
    .replace("image_attentions", "an_att")
    .replace("image_embeds @ text_embeds", "b_embed @ text"),
    "of one value": MOST_VOTES.replace("image_features, image_embeds, text_embeds =", "outputs =").replace(
        "image_features, image_attentions = image_features",
        "(image_features, image_attentions), image_embeds, text_embeds = outputs",
    ),
}


@pytest.mark.parametrize("source", UNPACKINGS.values(), ids=UNPACKINGS)
def test_a_tower_that_returns_a_pair_and_helpers_of_the_same_file_are_followed(root, cues, source):
    path = root / "MFPruner" / "llava_arch.py"
    path.parent.mkdir()
    path.write_text(source)
    values, kept = official_selection(root, "mfpruner", cues, 4)()
    unit = torch.nn.functional.normalize(cues.features[0], dim=1)
    expected = [cues.cls_attention[0], cues.relevance[0]]
    expected = [values - values.mean() for values in expected] + [1 - (unit @ unit.T).mean(dim=1)]
    assert kept == 4 and torch.allclose(values, torch.stack(expected), atol=1e-5)


def test_its_time_stands_in_the_row(root, cpu):
    row = measure_case(Case("divprune", 1, 36, 16, 4), cpu, reps=1, seed=0, official_root=root)
    assert row["ratio_to_official"] > 0 and row["official_wall_ms"] > 0


def test_a_method_that_is_not_there_is_left_out_with_a_warning(root, cues, caplog):
    with caplog.at_level(logging.WARNING):
        assert official_selection(root, "mfpruner", cues, 4) is None
    assert "mfpruner" in caplog.text and str(root) in caplog.text


def test_code_that_does_not_run_is_left_out_with_a_warning(root, cues, caplog):
    source = root / "VisPruner" / "llava" / "model" / "llava_arch.py"
    source.write_text(MOST_ATTENDED.replace("torch.topk", "torch.no_such_function"))
    with caplog.at_level(logging.WARNING):
        assert official_selection(root, "vispruner", cues, 4) is None
    assert str(source) in caplog.text and "no_such_function" in caplog.text


def test_code_of_another_outline_is_left_out_with_a_warning(root, cues, caplog):
    (root / "VisPruner" / "llava" / "model" / "llava_arch.py").write_text("def encode_images(self, images): pass")
    with caplog.at_level(logging.WARNING):
        assert official_selection(root, "vispruner", cues, 4) is None
    assert "does not unpack" in caplog.text
