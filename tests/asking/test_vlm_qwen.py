"""A random Qwen2.5-VL behind vlm_pruned: images of any size, several of them, and videos, in one batch."""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision", reason="Qwen's processors need torchvision")

from tokenizers import pre_tokenizers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.video_utils import VideoMetadata

from llava.asking.conversations import Video
from llava.asking.load import load
from llava.asking.processes import Processes
from llava.asking.questions import Question, in_batches
from llava.lmms.loading import load_vlm_pruned
from llava.records import InputError

SPECIAL = [f"<|{name}|>" for name in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|{{ part.type }}_pad|><|vision_end|>"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pixels(*shape) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 255, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("qwen")
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    names = {"eos_token": "<|im_end|>", "pad_token": "<|im_start|>", "additional_special_tokens": SPECIAL}
    tokenizer = Qwen2Tokenizer(vocab=letters, merges=[], unk_token=None, **names)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": None}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    placeholders = {f"{kind}_token_id": ids[f"<|{kind}_pad|>"] for kind in ("image", "video")}
    placeholders |= {f"vision_{end}_token_id": ids[f"<|vision_{end}|>"] for end in ("start", "end")}
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **placeholders))
    model.generation_config.update(eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|im_start|>"])
    model.save_pretrained(folder)
    sizes = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    wide, tall, film = Image.fromarray(pixels(80, 100)), Image.fromarray(pixels(120, 60)), pixels(9, 64, 80)
    return [
        Question("What is it?", lambda: [wide]),
        Question("Are <image> and <image> alike?", lambda: [wide, tall]),
        Question("What happens in this film?", lambda: [film]),
        Question("A film or a picture?", lambda: [tall, film]),
        Question("A question by itself"),
    ]


@pytest.mark.usefixtures("can_prune")
@pytest.mark.parametrize("pruner", [{}, {"pruner": "divprune"}, {"pruner": "mfpruner", "cues": "qwen_release"}])
def test_batches_of_images_videos_and_text_equal_single_questions(checkpoint, questions, pruner):
    options = {"keep_ratio": 0.5} | pruner if pruner else {}
    backend = load_vlm_pruned(checkpoint, Processes(device="cpu"), dtype="float32", max_frames_num=4, **options)
    single, batched = ([*backend.answers(questions, size, max_new_tokens=6)] for size in (1, 5))
    assert batched == single and len({reply.text for reply in single}) > 1
    asked = [Question(each.text, each.load_visuals, continuation="yes") for each in questions]
    one, all_at_once = ([loss for loss, _ in in_batches(asked, size, backend.score)] for size in (1, 5))
    assert all_at_once == pytest.approx(one, abs=1e-4)


@pytest.mark.usefixtures("can_prune")
def test_half_of_the_visual_tokens_are_half_of_those_in_the_prompt(checkpoint, questions):
    replies = {}
    for name, options in {"whole": {}, "half": {"pruner": "divprune", "keep_ratio": 0.5}}.items():
        backend = load_vlm_pruned(checkpoint, Processes(device="cpu"), dtype="float32", max_frames_num=4, **options)
        replies[name] = backend.answers(questions, 5, max_new_tokens=6)
    dropped = [w.prompt_tokens - h.prompt_tokens for w, h in zip(replies["whole"], replies["half"], strict=True)]
    assert sum(dropped) == backend.visual_tokens["before"] - backend.visual_tokens["kept"]
    assert backend.visual_tokens["kept"] * 2 == backend.visual_tokens["before"]
    assert dropped[-1] == 0 < min(dropped[:-1])


@pytest.mark.usefixtures("can_prune")
class TestClips:
    @pytest.fixture
    def model(self, checkpoint):
        return load(checkpoint, device="cpu", max_frames_num=4)

    def test_are_shown_by_frames_file_and_beside_a_picture(self, model, tmp_path):
        av, film, places = pytest.importorskip("av"), pixels(9, 64, 80), [0, 3, 5, 8]
        with av.open(str(tmp_path / "film.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=4)
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
            for frame in film:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        options = {"pruning": {"pruner": "divprune", "keep_ratio": 0.5}, "max_new_tokens": 4}
        shown = [film, tmp_path / "film.mp4", Video(film[places], VideoMetadata(9, fps=1.0, frames_indices=places))]
        found = model.answers([(each, "What happens?") for each in shown], **options)
        assert found[0] == found[2]
        assert {(each.visual_tokens * 2, len(each.keep)) for each in found} == {(found[0].tokens_before, 1)}
        both = model.answer([pixels(80, 100), film], "A film or a picture?", **options)
        assert len(both.keep) == 2 and both.tokens_before > found[0].tokens_before

    def test_that_are_not_there_are_named(self, model, tmp_path):
        with pytest.raises(InputError, match=r"absent\.mp4: no such file"):
            model.answer(tmp_path / "absent.mp4", "What happens?")

    def test_are_refused_by_models_of_images(self, converted):
        with pytest.raises(ValueError, match=r"film\.mp4: shapes-hf is a model of images, and reads no videos"):
            load(converted, device="cpu").answer("film.mp4", "What happens?")
