"""The scripts that draw what pruners keep, on the embedded model."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from llava.command import run_program
from llava.records import InputError
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import sample_scenes

SCRIPTS = Path(__file__).parents[2] / "scripts"
CLIP = str(Path(checkpoint_path()).parent / "clip-shapes")


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


relevance, selection, diversity = (script(f"visualize_{name}") for name in ("relevance", "selection", "diversity"))
load_tower = relevance.load_tower


@pytest.fixture
def image_file(tmp_path):
    """A dark picture with a red and a blue disc, wider than high."""
    y, x = np.mgrid[:90, :140]
    pixels = np.full((90, 140, 3), 40, dtype=np.uint8)
    pixels[(x - 40) ** 2 + (y - 40) ** 2 < 400] = (220, 30, 30)
    pixels[(x - 100) ** 2 + (y - 50) ** 2 < 400] = (40, 60, 230)
    Image.fromarray(pixels).save(tmp_path / "two discs.png")
    return tmp_path / "two discs.png"


@pytest.mark.parametrize("name", ["visualize_relevance", "visualize_selection", "visualize_diversity"])
def test_without_matplotlib_a_script_ends_with_how_to_install_it(image_file, tmp_path, monkeypatch, name):
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    program = script(name)
    words = {"visualize_relevance": ["--images", str(image_file), "--words", "disc"]}
    drawn = ["--output", str(tmp_path / "p.png"), "--visual_token_num", "9", "--pruner", "divprune"]
    words["visualize_selection"] = [str(image_file), "How many?", *drawn]
    words["visualize_diversity"] = [str(image_file), *drawn]
    with pytest.raises(SystemExit, match=r"needs matplotlib.*: pip install '\.\[eval\]'"):
        run_program(program.build_parser(), program.visualize, words[name])
    assert [path.name for path in tmp_path.iterdir()] == [image_file.name]


class TestWithoutArguments:
    """Whoever has no pictures yet sees scenes, drawn on a CPU and without a network."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def test_relevance_of_all_that_the_scenes_show(self, tmp_path):
        run_program(relevance.build_parser(), relevance.visualize, [])
        shown = [relevance.words_in(scene) for scene in sample_scenes(relevance.SCENES)]
        wanted = {f"scene {n}/{word}.png" for n, words in enumerate(shown) for word in words}
        folder = tmp_path / "playground/data/visualize"
        assert {str(path.relative_to(folder)) for path in folder.glob("*/*")} == wanted and len(wanted) > 8

    def test_relevance_of_the_words_that_are_named(self, tmp_path):
        run_program(relevance.build_parser(), relevance.visualize, ["--words", "heart", "--output-folder", "out"])
        assert len(list(tmp_path.glob("out/*/heart.png"))) == len(list(tmp_path.glob("out/*/*"))) == relevance.SCENES

    def test_relevance_of_the_samples_where_they_are(self, image_file, tmp_path, monkeypatch):
        sample = tmp_path / "playground/data/samples/COCO_val2014_000000017708.jpg"
        sample.parent.mkdir(parents=True)
        Image.open(image_file).save(sample)
        asked = []
        monkeypatch.setattr(relevance, "load_tower", lambda *place: asked.append(place) or load_tower(CLIP, "cpu"))
        run_program(relevance.build_parser(), relevance.visualize, [])
        assert asked == [("openai/clip-vit-large-patch14-336", "cpu")]
        drawn = tmp_path / "playground/data/visualize" / sample.stem
        assert sorted(path.stem for path in drawn.iterdir()) == ["bird", "boat", "lake", "rock"]

    def test_selection_in_a_scene_that_the_embedded_model_answers(self, tmp_path, monkeypatch):
        drawn, draw = [], selection.draw_panels
        monkeypatch.setattr(selection, "draw_panels", lambda *parts: (drawn.append(parts), draw(*parts)))
        run_program(selection.build_parser(), selection.visualize, [])
        ((rows, _, title),) = drawn
        assert title == selection.SAMPLE_QUESTION and [len(row) for row in rows] == [1, 2, 2, 2, 2]
        (none, *_), random, *_, divprune, cdpruner = [[caption.split("\n")[1] for caption, _ in row] for row in rows]
        scene = sample_scenes(selection.SAMPLE + 1)[-1]
        (ring,) = (item.color for item in scene.objects if item.shape == "ring")
        assert {none, *divprune, *cdpruner} == {ring} != {*random}
        assert (tmp_path / "selection.png").stat().st_size > 1000

    def test_diversity_in_scenes(self, tmp_path, monkeypatch):
        shown, draw = [], diversity.draw
        monkeypatch.setattr(diversity, "draw", lambda *parts: (shown.append(parts), draw(*parts)))
        run_program(diversity.build_parser(), diversity.visualize, [])
        ((_, kept, distances, _),) = shown
        assert {name: len(keep) for name, keep in kept.items()} == {"random": 36, "cls_topk": 36, "divprune": 36}
        assert all(len(values) == diversity.SAMPLES for values in distances.values())
        assert (tmp_path / "diversity.png").stat().st_size > 1000

    def test_a_budget_alone_is_that_of_the_usual_pruners(self):
        args = diversity.build_parser().parse_args(["--visual_token_num", "9"])
        assert [pruner.visual_token_num for pruner in diversity.choose(args).values()] == [9, 9, 9]


class TestRelevance:
    def draw(self, folder, *options):
        words = ["--output-folder", str(folder), "--model-path", CLIP, "--device", "cpu", *map(str, options)]
        run_program(relevance.build_parser(), relevance.visualize, words)

    def test_draws_every_word_for_every_image_of_a_folder(self, image_file, tmp_path):
        Image.new("L", (20, 30)).save(image_file.with_name("grey.jpg"))
        image_file.with_name("notes.txt").touch()
        self.draw(tmp_path / "out", "--image-folder", image_file.parent, "--words", "circle", "and/or")
        drawn = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*"))
        assert drawn == ["grey/and-or.png", "grey/circle.png", "two discs/and-or.png", "two discs/circle.png"]
        with Image.open(tmp_path / "out/grey/circle.png") as picture:
            assert picture.size == (384, 384)  # the least multiple of the encoder's 96 pixels above 336

    def test_the_maps_are_the_negated_cosines_of_clips_second_last_block(self, image_file):
        texts = ["Is there a circle in the image?", "Is there a cross in the image?"]
        image = Image.open(image_file)
        tower = relevance.load_tower(CLIP, "cpu")
        maps = relevance.relevance_maps(tower, image, texts)
        clip, tokenizer = CLIPModel.from_pretrained(CLIP, dtype=torch.float32), CLIPTokenizer.from_pretrained(CLIP)
        pixels = tower.image_processor(image.convert("RGB").resize((96, 96)), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            vision = clip.vision_model
            hidden = vision(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
            patches = clip.visual_projection(vision.post_layernorm(hidden))[0]
            pooled = clip.text_model(**tokenizer(texts, return_tensors="pt", padding=True)).pooler_output
            cosine = torch.cosine_similarity(patches[None], clip.text_projection(pooled)[:, None], dim=-1)
        assert torch.allclose(maps.flatten(1), -cosine, atol=1e-5)

    def test_the_map_is_red_where_relevance_is_highest_and_blue_where_it_is_lowest(self):
        picture = relevance.heat_map(Image.new("RGB", (10, 10)), torch.tensor([[-0.3, -0.1], [-0.2, -0.2]]), 336)
        blue, red = (np.asarray(picture.getpixel(spot)) for spot in ((80, 80), (250, 80)))
        assert blue[2] > 60 > 2 * blue[0] and red[0] > 60 > 2 * red[2]

    def test_a_map_without_differences_can_be_drawn(self):
        relevance.heat_map(Image.new("RGB", (10, 10)), torch.full((2, 2), 0.5), 336)

    def test_the_samples_of_the_figure_bring_their_words(self):
        assert relevance.words_of(Path("COCO_val2014_000000017708.jpg"), None) == ["bird", "boat", "rock", "lake"]
        assert relevance.words_of(Path("COCO_val2014_000000017708.jpg"), ["sky"]) == ["sky"]

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--images", "two discs.png"], "say with --words what to look for in two discs.png"),
            (["--image-folder", "nowhere", "--words", "sky"], "--image-folder nowhere: no images there"),
            (["--images", "absent.png", "--words", "sky"], "cannot read the image absent.png"),
            (
                ["--images", "a.png", "--words", "sky", "--model-path", "./nowhere"],
                "--model-path ./nowhere: cannot load",
            ),
        ],
    )
    def test_bad_input_ends_with_what_to_repair(self, tmp_path, options, complaint):
        with pytest.raises(SystemExit) as end:
            self.draw(tmp_path / "out", *options)
        assert complaint in str(end.value)


class TestSelection:
    def test_one_row_for_each_pruner_and_one_column_for_each_budget(self, image_file, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(selection, "draw_panels", lambda rows, path, title: drawn.append((rows, title)))
        options = "--pruner none cls_topk divprune --visual_token_num 9 18 --max_new_tokens 2 --device cpu"
        words = [str(image_file), "Which colors?", "--output", str(tmp_path / "a.png"), *options.split()]
        run_program(selection.build_parser(), selection.visualize, words)
        ((rows, title),) = drawn
        assert title == "Which colors?"
        captions = [[caption.split("\n")[0] for caption, _ in row] for row in rows]
        assert captions == [
            ["none, 144 tokens"],
            ["cls_topk, 9 tokens", "cls_topk, 18 tokens"],
            ["divprune, 9 tokens", "divprune, 18 tokens"],
        ]
        assert all(picture.shape == (384, 384, 3) for row in rows for _, picture in row)
        (full,), *pruned = [[picture.mean() for _, picture in row] for row in rows]
        assert all(full < more < fewer for fewer, more in pruned)  # what is dropped is white

    def test_the_picture_is_written(self, image_file, tmp_path):
        options = "--pruner uniform --keep_ratio 0.25 --max_new_tokens 1 --device cpu --output".split()
        words = [str(image_file), "Which?", *options, str(tmp_path / "new folder/a.png")]
        run_program(selection.build_parser(), selection.visualize, words)
        with Image.open(tmp_path / "new folder/a.png") as picture:
            assert picture.format == "PNG" and picture.width > 100

    def test_views_of_different_sizes_stand_side_by_side(self):
        base, grid = np.zeros((10, 10, 3), dtype=np.uint8), np.zeros((20, 60, 3), dtype=np.uint8)
        assert selection.beside([base, grid]).shape == (20, 20 + selection.GAP + 60, 3)

    def test_an_image_comes_with_a_question(self, image_file):
        with pytest.raises(InputError, match=f"QUESTION is missing: say what to ask about {image_file}"):
            selection.visualize(selection.build_parser().parse_args([str(image_file)]))

    @pytest.mark.parametrize("options", [["--pruner", "divprune"], ["--pruner", "none", "--conv-mode", "vicuna"]])
    def test_bad_options_are_refused_before_the_model_loads(self, image_file, options, monkeypatch):
        monkeypatch.setattr(selection, "load_model", None)
        with pytest.raises(InputError):
            selection.visualize(selection.build_parser().parse_args([str(image_file), "Q", *options]))


class TestDiversity:
    def test_the_least_distance_is_that_of_the_two_tokens_closest_in_angle(self):
        angles = torch.deg2rad(torch.tensor([0.0, 60.0, 150.0]))
        tokens = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [0.1]])
        assert math.isclose(diversity.least_distance(tokens), 0.5, abs_tol=1e-6)
        assert math.isclose(diversity.least_distance(tokens[[0, 0]]), 0.0, abs_tol=1e-6)

    def test_tokens_that_differ_along_two_axes_keep_their_distances(self):
        angles = torch.deg2rad(torch.arange(0.0, 360.0, 24.0))
        ring = torch.stack([torch.full_like(angles, 2.0), angles.cos(), angles.sin()], dim=1)
        unit = ring / ring.norm(dim=1, keepdim=True)
        points = diversity.main_axes(ring)
        assert torch.allclose(torch.cdist(points, points), torch.cdist(unit, unit), atol=1e-5)

    def test_draws_the_kept_tokens_of_all_images(self, image_file, tmp_path, monkeypatch):
        for shift in (5, 11):
            shifted = np.roll(np.asarray(Image.open(image_file)), shift, axis=(0, 1))
            Image.fromarray(shifted).save(image_file.with_name(f"shifted {shift}.png"))
        shown, draw = [], diversity.draw
        monkeypatch.setattr(diversity, "draw", lambda *parts: (shown.append(parts), draw(*parts)))
        options = "--pruner random divprune cdpruner --visual_token_num 6 --question Which? --device cpu --output"
        words = [str(image_file.parent), *options.split(), str(tmp_path / "d.png")]
        run_program(diversity.build_parser(), diversity.visualize, words)
        ((points, kept, distances, _),) = shown
        assert points.shape == (144, 2) and [len(keep) for keep in kept.values()] == [6, 6, 6]
        assert all(len(values) == 3 for values in distances.values())
        assert all(best > least for best, least in zip(distances["divprune"], distances["random"], strict=True))
        with Image.open(tmp_path / "d.png") as picture:
            assert picture.format == "PNG"

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ("--pruner none --visual_token_num 9", "none keeps every token"),
            ("--pruner divprune --visual_token_num 9 18", "one budget of two tokens or more"),
            ("--pruner divprune --visual_token_num 1", "one budget of two tokens or more"),
        ],
    )
    def test_what_has_no_distance_is_refused(self, options, complaint):
        with pytest.raises(InputError, match=complaint):
            diversity.visualize(diversity.build_parser().parse_args(["a.png", *options.split()]))

    def test_a_folder_without_images_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no images in this folder"):
            diversity.find_images([str(tmp_path)])
