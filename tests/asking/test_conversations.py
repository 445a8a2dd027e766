import numpy as np
import pytest
from PIL import Image

from llava.asking.conversations import Video, conversation, rendered, separated
from llava.asking.questions import Question

IMAGE = Image.new("RGB", (4, 4))
FRAMES = 9


class Processor:
    """Renders a chat as the types of its parts."""

    def apply_chat_template(self, messages, add_generation_prompt=False, tokenize=True):
        assert tokenize is False
        parts = [part.get("text", f"<{part['type']}>") for message in messages for part in message["content"]]
        return "|".join(parts) + ("|?" if add_generation_prompt else "|end\n")


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> str:
    """A video of nine frames, each brighter than the one before."""
    av = pytest.importorskip("av", reason="reading videos needs av, extra video")
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=3)
        stream.width = stream.height = 32
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 25 * number, dtype=np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def content(text, *visuals):
    turn = conversation(Question(text, lambda: list(visuals)), 4)
    return [part.get("text", part["type"]) for part in turn.content]


class TestContent:
    def test_images_stand_where_the_question_says(self):
        assert content("Is <image> like\n<image>?", IMAGE, IMAGE) == ["Is", "image", "like", "image", "?"]

    @pytest.mark.parametrize("text", ["Which?", "<image>Which?", "Wh<image>ich<image>?<image>"])
    def test_images_stand_in_front_where_it_does_not(self, text):
        assert content(text, IMAGE, IMAGE) == ["image", "image", "Which?"]

    def test_videos_stand_before_images(self):
        assert content("Which?", IMAGE, np.zeros((2, 4, 4, 3), dtype=np.uint8)) == ["video", "image", "Which?"]

    def test_a_question_alone_is_text(self):
        assert content("What does <image> mean?") == ["What does  mean?"]

    def test_images_of_any_mode_become_rgb(self):
        turn = conversation(Question("?", lambda: [Image.new("L", (4, 4))]), 4)
        assert turn.visuals[0].mode == "RGB"

    def test_what_is_neither_image_nor_video_is_named_with_its_question(self):
        with pytest.raises(ValueError, match="sounds, document 2 shows dict"):
            conversation(Question("?", lambda: [{"array": []}], "sounds, document 2"), 4)


class TestVideos:
    def test_of_a_file_are_read_at_even_distances_from_the_first_frame_to_the_last(self, film):
        (video,) = conversation(Question("?", lambda: [film]), 5).visuals
        assert video.frames.shape == (5, 32, 32, 3)
        assert list(video.metadata.frames_indices) == [0, 2, 4, 6, 8]
        assert video.metadata.fps == 3 and video.metadata.total_num_frames == FRAMES
        assert np.abs(video.frames.mean(axis=(1, 2, 3)) - [0, 50, 100, 150, 200]).max() < 10

    def test_that_are_short_are_read_whole(self, film):
        (video,) = conversation(Question("?", lambda: [film]), 100).visuals
        assert len(video.frames) == FRAMES

    def test_of_frames_in_memory_are_thinned_alike(self):
        frames = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1).repeat(3, axis=-1)
        (video,) = conversation(Question("?", lambda: [frames]), 5).visuals
        assert video.frames[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8] == video.metadata.frames_indices

    def test_come_apart_from_the_images(self):
        frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
        shown = ([IMAGE], [IMAGE, frames], [])
        turns = [conversation(Question("?", lambda visuals=visuals: visuals), 4) for visuals in shown]
        images, videos, metadata = separated(turns)
        assert len(images) == 2 and len(videos) == len(metadata) == 1
        assert isinstance(turns[1].visuals[0], Video)


def test_a_turn_is_rendered_for_an_answer_or_with_one():
    turn = conversation(Question("Which?", lambda: [IMAGE]), 4)
    assert rendered(Processor(), turn) == "<image>|Which?|?"
    assert rendered(Processor(), turn, "This") == "<image>|Which?|This|end"
