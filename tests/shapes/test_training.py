"""Training code: labels agree with the picture, packed questions equal single ones, a few steps train and resume."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.shapes import checkpoint_path
from llava.shapes.questions import SHORT_ANSWER_PROMPT
from llava.shapes.scenes import OBJECT_COUNTS, SHAPES, scene_generator
from scripts.shapes import train
from scripts.shapes.data import (
    GRID,
    IGNORED,
    NUM_PATCHES,
    PATCH_SIZE,
    PromptTokens,
    draw_phrase,
    draw_questions,
    draw_scenes,
    fits,
    patch_labels,
    patch_owners,
    question_batch,
    random_keep,
    uneven_keep,
)
from scripts.shapes.model import ShapesModel

CHECKPOINTS = Path(checkpoint_path()).parent


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, can_train_tokenizers):
    return train.tokenizers(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(scene_generator("train", 5), "train", 12)


def test_patch_labels_say_what_the_patch_at_an_objects_centre_shows(scenes):
    for scene in scenes:
        labels = patch_labels(scene)
        centres = []
        for item in scene.objects:
            row, column = (item.top + item.size // 2) // PATCH_SIZE, (item.left + item.size // 2) // PATCH_SIZE
            centres.append(row * GRID + column)
            if item.shape != "ring":
                assert labels["kind"][centres[-1]] == 1
                assert labels["shape"][centres[-1]] == SHAPES.index(item.shape)
        assert np.flatnonzero(labels["centre"]).tolist() == sorted(centres)
        assert ((labels["shape"] == IGNORED) == (labels["kind"] != 1)).all()
        assert (labels["count"][labels["kind"] == 1] == len(scene.objects) - OBJECT_COUNTS.start).all()
        assert ((labels["tens"] == IGNORED) == (labels["kind"] != 2)).all()


def test_a_phrase_fits_the_scene_it_was_drawn_from_and_not_every_other(scenes):
    rng = np.random.default_rng(0)
    matches = np.array([[fits(other, *draw_phrase(scene, rng)[1:]) for other in scenes] for scene in scenes])
    assert all(fits(scene, *draw_phrase(scene, rng)[1:]) for scene in scenes for _ in range(20))
    assert not matches.all()


def test_question_tokens_are_those_of_the_real_prompt(tokenizers):
    prompts = PromptTokens(tokenizers[1])
    ids, asked = prompts.question("What color is the star?", "red")
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message("USER", f"<image>\nWhat color is the star?\n{SHORT_ANSWER_PROMPT}")
    conversation.append_message("ASSISTANT", None)
    real = tokenizer_image_token(conversation.get_prompt(), tokenizers[1], IMAGE_TOKEN_INDEX)
    assert prompts.before_image + [IMAGE_TOKEN_INDEX] + ids[:asked] == list(real)
    assert tokenizers[1].decode(ids[asked:], skip_special_tokens=True).strip() == "red"
    assert ids[-1] == tokenizers[1].eos_token_id


def test_questions_of_a_picture_are_different_and_as_many_as_wanted(scenes):
    for scene in scenes:
        asked = draw_questions(scene, np.random.default_rng(0), 8)
        assert len(asked) == len({question for _, question, _ in asked}) == 8


def test_packed_questions_give_the_logits_of_each_question_alone(tokenizers, scenes):
    torch.manual_seed(0)
    model = ShapesModel(*tokenizers).eval()
    prompts = PromptTokens(tokenizers[1])
    batch = question_batch([draw_questions(scene, np.random.default_rng(1), 3) for scene in scenes[:2]], prompts)
    patches = torch.randn(2, 9, 128)
    with torch.no_grad():
        packed = model.answer_logits(patches, prompts.before_image, batch)
        model.llm.set_attn_implementation("eager")
        single = []
        for image in range(2):
            for ids, targets in zip(batch.ids[image], batch.targets[image], strict=True):
                last = int((targets != IGNORED).nonzero().max()) + 1
                embed = model.llm.model.embed_tokens
                start, asked = embed(torch.tensor(prompts.before_image)), embed(ids[:last])
                embeds = torch.cat([start, model.projector(patches[image]), asked])[None]
                logits = model.llm(inputs_embeds=embeds).logits[0, -last:]
                single.append(logits[targets[:last] != IGNORED])
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-5, rtol=1e-5)


def test_random_patches_are_distinct_ascending_and_evenly_spread():
    keep = random_keep(np.random.default_rng(0), 2000, 36)
    assert (keep.diff(dim=1) > 0).all()
    share = torch.bincount(keep.flatten(), minlength=NUM_PATCHES) / 2000
    assert share.min() > 0.2 and share.max() < 0.3


def test_uneven_selections_keep_what_they_should_and_spread_from_no_object_to_only_objects(scenes):
    many = draw_scenes(scene_generator("train", 6), "train", 300)
    keep = uneven_keep(np.random.default_rng(0), many, 18)
    assert keep.shape == (300, 18) and (keep.diff(dim=1) > 0).all()
    shown = [(patch_owners(scene)[row] >= 0).mean() for scene, row in zip(many, keep.numpy(), strict=True)]
    assert np.percentile(shown, 5) < 0.1 and np.percentile(shown, 95) > 0.8


def run_training(folder, *options):
    train.train(train.build_parser().parse_args(["--run-dir", str(folder), "--threads", "1", *options]))


@pytest.mark.usefixtures("can_train_tokenizers")
def test_training_lowers_the_loss_saves_and_resumes_where_it_stopped(tmp_path):
    tower = ("--stage", "tower", "--batch-size", "4", "--lr", "3e-3", "--save-every", "10")
    run_training(tmp_path, *tower, "--steps", "20")
    run_training(tmp_path, *tower, "--steps", "40")
    log = [json.loads(line) for line in (tmp_path / "tower.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [20, 40]
    assert log[1]["kind"] < log[0]["kind"] and log[1]["centre"] < log[0]["centre"]


@pytest.mark.usefixtures("can_train_tokenizers")
def test_the_language_stage_takes_over_the_tower_and_leaves_it_alone(tmp_path):
    run_training(tmp_path, "--stage", "tower", "--batch-size", "2", "--steps", "2")
    language = ("--stage", "language", "--batch-size", "2", "--questions", "3", "--steps", "20")
    watched = ("--validate-every", "20", "--validation-images", "2")
    run_training(tmp_path, *language, *watched, "--tower-from", str(tmp_path / "tower.pt"))
    tower, after = (torch.load(tmp_path / f"{stage}.pt") for stage in ("tower", "language"))
    assert all(
        torch.equal(after["masters"][name], weight) == name.startswith("clip.")
        for name, weight in tower["average"].items()
        if name.startswith(("clip.", "llm.model.layers"))
    )
    report = json.loads((tmp_path / "language.jsonl").read_text())
    assert report["step"] == 20 and set(report["val"]) == {"144", "36", "9"}


@pytest.mark.usefixtures("can_train_tokenizers")
def test_the_language_tokenizer_has_the_pieces_of_the_one_the_checkpoint_carries(tmp_path):
    train.tokenizers(tmp_path)
    trained, carried = (
        sentencepiece.SentencePieceProcessor(model_file=str(folder / "llava-shapes" / "tokenizer.model"))
        for folder in (tmp_path, CHECKPOINTS)
    )
    assert len(trained) == len(carried)
    assert all(trained.id_to_piece(index) == carried.id_to_piece(index) for index in range(len(trained)))
