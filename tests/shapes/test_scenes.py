"""Scenes: the picture shows what the scene says, and splits never share a background or a scene."""

import numpy as np
import pytest

from llava.shapes.scenes import (
    COLORS,
    FAMILIES,
    IMAGE_SIZE,
    PLATE_HEIGHT,
    PLATE_WIDTH,
    SHAPES,
    draw_scene,
    object_map,
    plate_ink,
    render,
    scene_generator,
    shape_mask,
)
from llava.shapes.textures import TEXTURES


def scenes(split, count, seed=0):
    rng = scene_generator(split, seed)
    return [draw_scene(rng, split) for _ in range(count)]


def test_the_same_seed_draws_the_same_pixels_and_another_seed_does_not():
    first, again, other = (scenes("test", 5, seed) for seed in (3, 3, 4))
    assert first == again
    assert all(np.array_equal(render(a), render(b)) for a, b in zip(first, again, strict=True))
    assert first != other


def test_splits_share_no_background_family_and_no_random_stream():
    families = [name for split in FAMILIES.values() for name in split]
    assert sorted(families) == sorted(TEXTURES)
    drawn = {split: {scene.texture_seed for scene in scenes(split, 50)} for split in FAMILIES}
    assert not drawn["train"] & drawn["test"] and not drawn["val"] & drawn["test"] and not drawn["train"] & drawn["val"]
    assert all(scene.family in FAMILIES[split] for split in FAMILIES for scene in scenes(split, 50))


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown split 'dev': one of train, val, test"):
        scene_generator("dev", 0)


def test_boxes_stay_inside_the_frame_and_apart():
    for scene in scenes("train", 200):
        free = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=int)
        boxes = [(item.top, item.left, item.size, item.size) for item in scene.objects]
        if scene.plate:
            boxes.append((scene.plate.top, scene.plate.left, PLATE_HEIGHT, PLATE_WIDTH))
        for top, left, height, width in boxes:
            assert top >= 0 and left >= 0 and top + height <= IMAGE_SIZE and left + width <= IMAGE_SIZE
            free[top : top + height, left : left + width] += 1
        assert free.max() == 1


def test_every_object_shows_its_colour_where_the_map_says_it_is():
    names, palette = list(COLORS), np.array(list(COLORS.values()), dtype=float)
    for scene in scenes("test", 100):
        picture, owner = render(scene).astype(float), object_map(scene)
        for index, item in enumerate(scene.objects):
            mean = np.median(picture[owner == index], axis=0)
            assert names[np.linalg.norm(palette - mean, axis=1).argmin()] == item.color


def test_the_background_is_muted_and_never_as_saturated_as_an_object():
    for split in FAMILIES:
        for scene in scenes(split, 30):
            outside = render(scene)[object_map(scene) == -1].astype(int)
            spread = np.median(outside.max(axis=1) - outside.min(axis=1))
            assert spread < 60


def test_every_texture_fills_the_picture_with_values_from_zero_to_one():
    for name, texture in TEXTURES.items():
        field = texture(np.random.default_rng(0))
        assert field.shape == (IMAGE_SIZE, IMAGE_SIZE), name
        assert field.min() >= -1e-6 and field.max() <= 1 + 1e-6, name
        assert field.std() > 0.05, name


def test_shapes_are_told_apart_by_their_pixels():
    masks = {shape: shape_mask(shape, 20) for shape in SHAPES}
    for one in SHAPES:
        assert 0.2 < masks[one].mean() < 0.9
        for other in SHAPES:
            assert one == other or abs(masks[one] - masks[other]).mean() > 0.08


def test_shapes_are_as_symmetric_as_their_names_say():
    for shape in SHAPES:
        mask = shape_mask(shape, 20)
        assert abs(mask - mask[:, ::-1]).mean() < 0.02, shape
    for shape in ("circle", "square", "cross", "ring"):
        assert abs(shape_mask(shape, 20) - shape_mask(shape, 20).T).mean() < 0.01, shape
    assert shape_mask("ring", 21)[10, 10] == 0 and shape_mask("circle", 21)[10, 10] == 1
    triangle, heart = shape_mask("triangle", 20).sum(axis=1), shape_mask("heart", 20).sum(axis=1)
    assert triangle[:10].sum() < triangle[10:].sum() and heart[:10].sum() > heart[10:].sum()


def test_plates_of_different_numbers_differ():
    inks = [plate_ink(number).tobytes() for number in range(10, 100)]
    assert len(set(inks)) == 90


def test_the_plate_is_where_the_scene_says():
    with_plate = [scene for scene in scenes("val", 40) if scene.plate]
    assert 20 < len(with_plate) < 40
    for scene in with_plate:
        top, left = scene.plate.top, scene.plate.left
        shown = render(scene)[top : top + PLATE_HEIGHT, left : left + PLATE_WIDTH].mean(axis=2) < 130
        assert np.array_equal(shown, plate_ink(scene.plate.number) > 0.5)
