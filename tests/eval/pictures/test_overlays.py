"""Which patches a picture shows as kept, on tiles small enough to check by hand, and against a model's own count."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from llava.asking.llava import LlavaModel
from llava.eval.pictures.overlays import kept_masks, pictures, views
from llava.model.builder import load_pretrained_model
from llava.pruners import resolve_pruner

E2E = Path(__file__).parents[2] / "e2e"
SIDE = 2  # patches along a tile, of 4 pixels each


def model(aspect_ratio="anyres", merge_type="spatial", pinpoints=((16, 16),)):
    tower = SimpleNamespace(num_patches_per_side=SIDE, num_patches=4, config=SimpleNamespace(image_size=8))
    config = SimpleNamespace(
        image_aspect_ratio=aspect_ratio, image_grid_pinpoints=pinpoints, mm_patch_merge_type=merge_type
    )
    return SimpleNamespace(config=config, get_vision_tower=lambda: tower)


def show(mask):
    return ["".join(".#"[kept] for kept in row) for row in mask.tolist()]


def test_a_single_tile_shows_its_patches_in_raster_order():
    (mask,) = kept_masks(torch.tensor([1, 2]), (8, 8), model("pad"))
    assert show(mask) == [".#", "#."]


def test_tiles_selected_one_by_one_stand_where_they_lie_in_the_image():
    keep = torch.tensor([0, 4, 7, 16, 19])  # of each tile one: base, then the grid row by row
    base, grid = kept_masks(keep, (16, 16), model())
    assert show(base) == ["#.", ".."]
    assert show(grid) == ["#..#", "....", "....", "#..#"]


def test_positions_in_the_merged_sequence_follow_the_rows_of_the_grid():
    keep = torch.tensor([3, 4, 7, 8])  # the base has 0 to 3
    base, grid = kept_masks(keep, (16, 16), model())
    assert show(base) == ["..", ".#"]
    assert show(grid) == ["#..#", "#...", "....", "...."]


class TestNativeLayout:
    """An image twice as wide as high on a square canvas: the grid's first and last row of patches are padding."""

    native = model(merge_type="spatial_unpad")
    size = (16, 8)

    def test_everything_but_the_padding_is_kept_without_a_pruner(self):
        base, grid = kept_masks(None, self.size, self.native)
        assert show(base) == ["##", "##"]
        assert show(grid) == ["....", "####", "####", "...."]

    def test_base_and_grid_are_counted_apart(self):
        base, grid = kept_masks(torch.tensor([3, 4, 10]), self.size, self.native)
        assert show(base) == ["..", ".#"]
        assert show(grid) == ["....", "#...", ".#..", "...."]

    def test_newline_tokens_are_no_patches(self):
        base, grid = kept_masks(torch.tensor([0, 7, 8, 9]), self.size, self.native)  # 8 ends the first row
        assert show(base) == ["#.", ".."]
        assert show(grid) == ["....", "...#", "#...", "...."]


def test_the_views_are_what_the_encoder_sees():
    processor = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    wide = Image.new("RGB", (16, 8), (200, 0, 0))
    (padded,) = views(wide, processor, SimpleNamespace(image_aspect_ratio="pad"))
    assert padded.size == (16, 16) and padded.getpixel((0, 0)) == (122, 116, 104) and padded.getpixel((8, 8))[0] == 200
    base, canvas = views(wide, processor, model().config)
    assert base.size == (8, 8) and canvas.size == (16, 16) and canvas.getpixel((0, 0)) == (0, 0, 0)
    (cropped,) = views(wide, processor, SimpleNamespace(image_aspect_ratio=None))
    assert cropped.size == (8, 8)


def test_a_long_screenshot_is_drawn_in_a_size_that_fits_into_memory(clip_processor):
    (view,) = views(Image.new("RGB", (30_000, 10)), clip_processor, SimpleNamespace(image_aspect_ratio="pad"))
    assert view.size == (4096, 4096)


@pytest.mark.parametrize("anyres", ["native", "fixed"])
def test_as_many_patches_are_shown_as_the_language_model_saw(anyres):
    folder = str(E2E / "checkpoints/llava-v1.6-vicuna-tiny")
    tokenizer, llava, processor, _ = load_pretrained_model(
        folder, None, "llava-v1.6-vicuna-tiny", device="cpu", device_map=None, dtype="float32", anyres=anyres
    )
    loaded = LlavaModel("tiny", tokenizer, llava, processor)
    image = Image.open(E2E / "images/img3_900x300.png")
    for name in ("none", "uniform", "divprune"):
        llava.set_pruner(resolve_pruner(name, None if name == "none" else 40))
        loaded.answer(image, "What?", max_new_tokens=1)
        prune = llava.last_prune
        keep = None if prune.keep is None else prune.keep[0]
        masks = kept_masks(keep, image.size, llava)
        assert sum(int(mask.sum()) for mask in masks) == prune.visual_tokens[0] - prune.newline_tokens[0], name
        drawn = pictures(llava, processor, image)
        assert [picture.dtype for picture in drawn] == [np.uint8] * 2
        assert [picture.shape[:2] for picture in drawn] == [tuple(16 * s for s in mask.shape) for mask in masks]
