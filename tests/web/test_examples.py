from pathlib import Path

from llava.web.examples import draw_examples

from .test_asked import through


def test_the_scenes_are_the_same_at_every_start(drawn, tmp_path):
    again = draw_examples(tmp_path / "new")
    assert [question for _, question in again] == [question for _, question in drawn]
    assert [Path(path).read_bytes() for path, _ in again] == [Path(path).read_bytes() for path, _ in drawn]


def test_the_model_answers_what_it_was_trained_for(engine, drawn):
    from PIL import Image

    said = [through(engine.ask(Image.open(path), question, "none", 1))[1].text for path, question in drawn]
    assert all(said)
