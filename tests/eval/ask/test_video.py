"""Questions about videos: the program around a stand-in model, and tiny models with their own processors."""

import json
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from transformers.utils import is_torchvision_available

from llava.asking.conversations import Turn
from llava.asking.losses import noted
from llava.asking.questions import Answer
from llava.asking.vlm import Item
from llava.command import run_program
from llava.eval.ask import video as model_vqa_video
from llava.eval.ask.video import VideoDataset, build_parser, eval_model, video_samples
from llava.records import InputError

av = pytest.importorskip("av", reason="reading videos needs PyAV, the extra `video`")
needs_torchvision = pytest.mark.skipif(
    not is_torchvision_available(), reason="Transformers' video processors need torchvision, in the extra `video`"
)
FRAMES = (12, 3, 12, 20)


def write_video(path, frames, seed):
    generator = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for _ in range(frames):
            colours = np.repeat(np.repeat(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8), 8, 0), 8, 1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(colours, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture
def files(tmp_path):
    """Four videos of different lengths with a question about each."""
    folder = tmp_path / "videos"
    folder.mkdir()
    lines = []
    for number, frames in enumerate(FRAMES):
        write_video(folder / f"{number}.mp4", frames, number)
        text = f"What is{' very' * number} large?\nAnswer the question using a single word or phrase."
        lines.append({"question_id": number, "video": f"{number}.mp4", "text": text})
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SimpleNamespace(lines=lines, file=file, videos=folder)


@pytest.fixture
def ask(files, tmp_path):
    """Run the program; returns the records it wrote."""

    def call(**attributes):
        answers = tmp_path / "answers.jsonl"
        usual = {"question_file": files.file, "image_folder": files.videos, "answers_file": answers, "device": "cpu"}
        usual |= {"num_workers": 0, "overwrite": True, "model_path": "some/model", "for_get_frames_num": 4}
        eval_model(Namespace(**usual | attributes))
        return [json.loads(line) for line in answers.read_text().splitlines()]

    return call


class EchoBackend:
    """Answers with what it was asked and shown."""

    name = "some_model"

    def __init__(self, checkpoint, device, **options):
        self.options, self.calls, config = options, [], SimpleNamespace(_attn_implementation="sdpa")
        self.model = SimpleNamespace(dtype=torch.float32, device="cpu", config=config)

    def item(self, question):
        return Item(Turn([], question.load_visuals()), question.text, "")

    def answer_items(self, items, generation):
        self.calls.append(generation)
        return [self.answer(item, *item.turn.visuals) for item in items]

    def answer(self, item, video):
        kept = {"visual_tokens": (2 if self.options["pruner"] else 10) * len(video.frames)}
        text = f"{item.prompt} {video.frames.shape} {video.metadata.frames_indices}"
        return Answer(text, **kept, tokens_before=10 * len(video.frames), lost=noted(item.lost))


@pytest.fixture
def backends(monkeypatch):
    """The stand-ins that were loaded."""
    loaded = []
    load = lambda *args, **options: loaded.append(EchoBackend(*args, **options)) or loaded[-1]  # noqa: E731
    monkeypatch.setattr(model_vqa_video, "load_vlm", load)
    return loaded


class TestProgram:
    def test_shows_each_question_its_video_and_keeps_the_order(self, ask, backends, files):
        records = ask(batch_size=3)
        assert [record["question_id"] for record in records] == [0, 1, 2, 3]
        assert [record["prompt"] for record in records] == [line["text"] for line in files.lines]
        indices = [[0, 3, 7, 11], [0, 1, 2], [0, 3, 7, 11], [0, 6, 12, 19]]
        for record, line, chosen in zip(records, files.lines, indices, strict=True):
            assert record["text"] == f"{line['text']} {(len(chosen), 48, 64, 3)} {chosen}"
            assert record["metadata"]["frames"] == len(chosen)

    def test_records_what_was_kept_of_how_many_tokens_and_how(self, ask, backends):
        metadata = ask(pruner="divprune", visual_token_num=8, budget_scope="image")[1]["metadata"]
        assert (metadata["visual_tokens"], metadata["tokens_before"]) == (6, 30)
        assert (metadata["pruner"], metadata["options"]) == ("divprune", {"visual_token_num": 8})
        assert (metadata["run"]["budget_scope"], metadata["run"]["for_get_frames_num"]) == ("image", 4)
        assert backends[0].options["budget_scope"] == "image"

    def test_without_a_pruner_every_token_counts(self, ask, backends):
        metadata = ask()[0]["metadata"]
        assert metadata["pruner"] == "none" and backends[0].options["pruner"] is None
        assert metadata["visual_tokens"] == metadata["tokens_before"] == 40

    def test_batches_change_nothing_and_hold_videos_of_as_many_frames(self, ask, backends):
        one, many = (ask(batch_size=size) for size in (1, 4))
        assert [record["text"] for record in one] == [record["text"] for record in many]
        assert [len(backend.calls) for backend in backends] == [4, 2]  # three videos of 4 frames, one of 3

    def test_an_unreadable_video_stops_the_run_after_the_answers_before_it(self, ask, backends, files):
        (files.videos / "2.mp4").write_text("no video")
        with pytest.raises(InputError, match="question 2: cannot read its video: .*2.mp4"):
            ask()
        records = ask(on_error="skip")
        assert [bool(record["text"]) for record in records] == [True, True, False, True]
        assert "2.mp4" in records[2]["metadata"]["error"]

    def test_a_run_cut_short_is_continued_and_other_settings_are_refused(self, ask, backends, files, tmp_path):
        ask()
        lines = (tmp_path / "answers.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "answers.jsonl").write_text("".join(lines[:2]))
        assert len(ask(overwrite=False)) == 4
        assert len(backends[1].calls) == 2
        with pytest.raises(InputError, match="for_get_frames_num: 4, now 5"):
            ask(overwrite=False, for_get_frames_num=5)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"model_path": None}, "--model-path is missing"),
            ({"image_folder": "nowhere"}, "--video-folder nowhere: no such folder"),
            ({"budget_scope": "image"}, "--budget_scope without a pruner"),
            ({"pruner": "divprune", "visual_token_num": 4, "static_cache": True}, "--static-cache"),
            ({"profile": True}, "--profile"),
            ({"prune_layer": 1}, "--prune_layer without a pruner"),
            ({"pruner": "fastv", "visual_token_num": 4}, "fastv needs prune_layer"),
            ({"pruner": "trim", "visual_token_num": 4, "prune_layer": 1}, "trim merges tokens"),
            ({"pruner": "divprune"}, "needs a budget"),
        ],
    )
    def test_options_that_do_not_fit_are_refused_before_the_model_loads(self, ask, backends, wrong, message):
        with pytest.raises(InputError, match=message):
            ask(**wrong)
        assert not backends

    def test_a_checkpoint_that_is_not_there_ends_without_a_traceback(self, files, tmp_path, capsys):
        words = ["--model-path", str(tmp_path / "nothing"), "--question-file", str(files.file), "--device", "cpu"]
        words += ["--video-folder", str(files.videos), "--answers-file", str(tmp_path / "answers.jsonl")]
        with pytest.raises(SystemExit, match="cannot load .*nothing"):
            run_program(build_parser(), eval_model, words)

    def test_a_question_without_a_video_is_refused(self, put, ask, backends):
        with pytest.raises(InputError, match="video"):
            ask(question_file=put("broken.jsonl", [{"question_id": 1, "text": "What?"}]))


def test_an_item_knows_where_its_frames_stood(files):
    dataset = VideoDataset(video_samples(files.lines, files.videos), 4)
    video = dataset[3]
    assert (video.metadata.total_num_frames, video.metadata.fps) == (20, 10.0)
    assert video.metadata.sampled_fps == 2.0


TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}VIDEO {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} assistant:"
)
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def save(model, processor, folder):
    torch.manual_seed(0)
    for parameter in model.parameters():  # the default initialisation makes all answers alike
        parameter.data.normal_(std=0.3)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def llava_next_video(tokenizer, folder):
    """Frames of 56 x 56: 16 patches, pooled to 4 tokens."""
    from transformers import (
        CLIPVisionConfig,
        LlavaNextImageProcessorPil,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    tokenizer.add_tokens(["<image>", "<video>"], special_tokens=True)
    image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    config = LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(**SIZES, image_size=56, patch_size=14),
        text_config=LlamaConfig(**SIZES, vocab_size=len(tokenizer)),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=[[56, 112]],
    )
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**size),
        image_processor=LlavaNextImageProcessorPil(**size),
        tokenizer=tokenizer,
        chat_template=TEMPLATE.replace("VIDEO", "<video>"),
        patch_size=14,
        vision_feature_select_strategy="default",
    )
    return save(LlavaNextVideoForConditionalGeneration(config), processor, folder)


def qwen2_5_vl(tokenizer, folder):
    """Frames of 64 x 48 become 56 x 56: 4 tokens for every two frames."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessorPil,
        Qwen2VLVideoProcessor,
    )

    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(names, special_tokens=True)
    start, end, image, video = tokenizer.convert_tokens_to_ids(names)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    text = {**SIZES, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "rope_parameters": rope, "bos_token_id": 1}
    blocks = {"depth": 3, "num_heads": 4, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        vision_config={**blocks, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    pixels = {"size": {"shortest_edge": 56 * 56, "longest_edge": 4 * 56 * 56}}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=TEMPLATE.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"),
    )
    return save(Qwen2_5_VLForConditionalGeneration(config), processor, folder)


@needs_torchvision
@pytest.mark.usefixtures("can_prune")
@pytest.mark.parametrize("build", [llava_next_video, qwen2_5_vl])
class TestTinyModels:
    @pytest.fixture
    def path(self, build, tokenizer_folder, tmp_path):
        from transformers import LlamaTokenizer

        tokenizer = LlamaTokenizer.from_pretrained(tokenizer_folder, add_bos_token=True, pad_token="</s>")
        return build(tokenizer, tmp_path / "model")

    def test_answers_do_not_depend_on_the_batch_with_a_pruner_or_without(self, path, ask):
        texts = {}
        for name, pruning in {"none": {}, "divprune": {"pruner": "divprune", "visual_token_num": 1}}.items():
            one, many = (ask(model_path=path, batch_size=size, max_new_tokens=5, **pruning) for size in (1, 4))
            texts[name] = [record["text"] for record in one]
            assert texts[name] == [record["text"] for record in many]
        assert texts["none"] != texts["divprune"]

    @pytest.mark.parametrize("scope", ["tile", "image"])
    def test_budgets_are_per_frame_or_over_all_frames(self, path, ask, scope):
        records = ask(model_path=path, pruner="divprune", keep_ratio=0.5, budget_scope=scope, max_new_tokens=2)
        for record in records:
            metadata = record["metadata"]
            assert metadata["tokens_before"] % 4 == 0
            assert metadata["visual_tokens"] == metadata["tokens_before"] // 2

    def test_tokens_can_go_behind_a_layer_of_the_language_model(self, path, ask):
        records = ask(model_path=path, pruner="fastv", visual_token_num=1, prune_layer=1, max_new_tokens=2)
        for metadata in (record["metadata"] for record in records):
            assert 0 < metadata["visual_tokens"] < metadata["tokens_before"]
            assert metadata["run"]["prune_layer"] == 1

    @pytest.mark.parametrize("name", ["cdpruner", "vispruner", "mfpruner"])
    def test_other_pruners_run_as_well(self, path, ask, name):
        records = ask(model_path=path, pruner=name, visual_token_num=2, max_new_tokens=2)
        assert all(0 < record["metadata"]["visual_tokens"] < record["metadata"]["tokens_before"] for record in records)

    def test_keeping_all_is_no_pruning(self, path, ask):
        everything = {"pruner": "uniform", "keep_ratio": 1.0}
        plain, kept = (ask(model_path=path, max_new_tokens=5, **pruning) for pruning in ({}, everything))
        assert [record["text"] for record in plain] == [record["text"] for record in kept]
        assert all(r["metadata"]["visual_tokens"] == r["metadata"]["tokens_before"] for r in plain + kept)


class TestLosses:
    def test_frames_and_placeholders_are_told(self, ask, backends, files, caplog):
        lines = [
            line | {"text": f"<video>\n{line['text']}"} if line["question_id"] == 2 else line for line in files.lines
        ]
        files.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        metadata = [record["metadata"] for record in ask()]
        assert [entry.get("frames_missing") for entry in metadata] == [None, 1, None, None]
        assert [entry.get("placeholders") for entry in metadata] == [None, None, 1, None]
        assert "of 4 questions" in caplog.text and "(frames_missing)" in caplog.text

    def test_what_the_model_loses_comes_with_its_reply(self, ask, backends, monkeypatch):
        answer, lose = EchoBackend.answer_items, {"unfinished": True}
        replies = lambda *args: [replace(reply, lost=lose) for reply in answer(*args)]  # noqa: E731
        monkeypatch.setattr(EchoBackend, "answer_items", replies)
        assert all(record["metadata"]["unfinished"] for record in ask())

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_a_question_that_the_model_refuses_costs_no_other_its_answer(self, ask, backends, monkeypatch, batch_size):
        answer = EchoBackend.answer_items

        def refuse(self, items, generation):
            if any(item.prompt.count("very") == 2 for item in items):
                raise ValueError("tokens and features do not match")
            return answer(self, items, generation)

        monkeypatch.setattr(EchoBackend, "answer_items", refuse)
        with pytest.raises(InputError, match="question 2 cannot be asked: tokens and features do not match"):
            ask(batch_size=batch_size)
        records = ask(batch_size=batch_size, on_error="skip")
        assert ["error" in record["metadata"] for record in records] == [False, False, True, False]

    def test_a_video_that_was_exchanged_is_noticed(self, ask, backends, files):
        ask()
        write_video(files.videos / "0.mp4", FRAMES[0], 99)
        with pytest.raises(InputError, match=r"question number 1, .*0\.mp4"):
            ask(overwrite=False)
