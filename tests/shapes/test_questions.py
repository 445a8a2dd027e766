"""Questions: every answer is checked against the scene by counting again, from the text of the question alone."""

from collections import Counter

from llava.shapes.questions import QUESTION_TYPES, describe
from llava.shapes.scenes import COLORS, OBJECT_COUNTS, SHAPES, draw_scene, scene_generator


def asked(kind, count=400):
    rng = scene_generator("test", 7)
    for _ in range(count):
        scene = draw_scene(rng, "test")
        pair = QUESTION_TYPES[kind](scene, rng)
        if pair:
            yield scene, *pair
        else:
            yield scene, None, None


def test_color_is_asked_of_a_shape_that_occurs_once():
    for scene, question, answer in asked("color"):
        if question:
            shape = question.removeprefix("What color is the ").removesuffix("?")
            assert [item.color for item in scene.objects if item.shape == shape] == [answer]
        else:
            assert all(count > 1 for count in Counter(item.shape for item in scene.objects).values())


def test_shape_is_asked_of_a_color_that_occurs_once():
    for scene, question, answer in asked("shape"):
        if question:
            color = question.removeprefix("What shape is the ").removesuffix(" object?")
            assert [item.shape for item in scene.objects if item.color == color] == [answer]
        else:
            assert all(count > 1 for count in Counter(item.color for item in scene.objects).values())


def test_number_is_asked_where_there_is_a_plate():
    for scene, question, answer in asked("number"):
        assert (question is None) == (scene.plate is None)
        assert question is None or answer == str(scene.plate.number)


def test_exist_is_answered_by_looking_and_yes_half_of_the_time():
    answers = Counter()
    for scene, question, answer in asked("exist"):
        color, shape = question.removeprefix("Is there a ").removesuffix("?").split()
        assert color in COLORS and shape in SHAPES
        there = any(item.color == color and item.shape == shape for item in scene.objects)
        assert answer == ("Yes" if there else "No")
        answers[answer] += 1
    assert abs(answers["Yes"] - answers["No"]) < 80


def test_some_absent_objects_recombine_a_color_and_a_shape_of_the_scene():
    tricky = 0
    for scene, question, answer in asked("exist"):
        color, shape = question.removeprefix("Is there a ").removesuffix("?").split()
        seen = any(item.color == color for item in scene.objects) and any(item.shape == shape for item in scene.objects)
        tricky += answer == "No" and seen
    assert tricky > 60


def test_count_takes_every_value_about_as_often():
    answers = Counter()
    for scene, _, answer in asked("count"):
        assert answer == str(len(scene.objects))
        answers[answer] += 1
    assert set(answers) == {str(count) for count in OBJECT_COUNTS}
    assert min(answers.values()) > 0.5 * 400 / len(OBJECT_COUNTS)


def test_the_caption_names_every_object_and_the_plate_from_left_to_right():
    rng = scene_generator("train", 1)
    for _ in range(50):
        scene = draw_scene(rng, "train")
        parts = [(item.left, f"a {item.color} {item.shape}") for item in scene.objects]
        text = describe(scene)
        assert all(part in text for _, part in parts)
        assert (f"number {scene.plate.number}" in text) if scene.plate else ("plate" not in text)
        assert len(text.split(", ")) == len(parts) + (scene.plate is not None)
        shown = [part for _, part in sorted(parts)]
        assert [part for part in text.split(", ") if "plate" not in part] == shown
