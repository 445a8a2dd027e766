import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

from llava.asking import load
from llava.asking.load import choose_conv_mode, choose_pruner, load_model, model_name
from llava.eval.model_vqa_loader import build_parser
from llava.model import checkpoint
from llava.records import InputError
from llava.shapes import checkpoint_path

IMAGE = Image.new("RGB", (96, 96), (200, 30, 30))
QUESTION = "What color is the shape?"


def parsed(*words):
    return build_parser().parse_args(words)


def test_the_embedded_model_runs_where_no_path_is_given():
    assert load.model_path(parsed()) == checkpoint_path()
    assert model_name(parsed()) == "llava-shapes"
    assert model_name(parsed("--model-path", "~/x/checkpoint-7/")) == "x_checkpoint-7"


def test_the_builder_is_told_everything_the_command_line_says(monkeypatch):
    def load_pretrained_model(*args, **kwargs):
        given.append((args, kwargs))
        return "tokenizer", "model", "processor", 2048

    given = []
    monkeypatch.setattr(load, "load_pretrained_model", load_pretrained_model)
    words = "--model-path a/b --model-base c --device cpu --dtype bfloat16 --attn eager --anyres fixed"
    args = parsed(*words.split(), "--vision_dtype", "float32", "--budget_scope", "image", "--text_chunking", "bos_eos")
    args.prune_layer = 2
    assert load_model(args, None).name == "b"
    assert given == [
        (
            ("a/b", "c", "b"),
            {
                "device_map": None,
                "device": "cpu",
                "dtype": "bfloat16",
                "attn_implementation": "eager",
                "anyres": "fixed",
                "vision_dtype": "float32",
                "budget_scope": "image",
                "prune_layer": 2,
                "text_chunking": "bos_eos",
                "pruner": None,
            },
        )
    ]


def test_a_checkpoint_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=f"cannot load {tmp_path}/absent"):
        load_model(parsed("--model-path", str(tmp_path / "absent")), None)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_model(parsed("--model-path", str(tmp_path)), None)


def test_a_static_cache_and_pruning_inside_the_language_model_exclude_each_other():
    args = parsed("--pruner", "fastv", "--keep_ratio", "0.5", "--prune_layer", "2", "--static-cache")
    with pytest.raises(InputError, match="--static-cache .* --prune_layer"):
        load_model(args, choose_pruner(args))


def test_graphs_are_refused_where_there_is_no_gpu():
    with pytest.raises(InputError, match="--cuda-graphs needs a CUDA device, such as cuda; here it is cpu"):
        load_model(parsed("--device", "cpu", "--cuda-graphs"), None)


def test_a_pruner_that_reads_the_language_model_is_refused_in_front_of_it():
    args = parsed("--pruner", "fastv", "--keep_ratio", "0.5")
    with pytest.raises(InputError, match="fastv needs prune_layer of 1 or more"):
        load_model(args, choose_pruner(args))


def test_the_template_follows_the_models_name_and_another_is_used_with_a_warning(caplog):
    assert choose_conv_mode(SimpleNamespace(model_path="x/llava-v1.6-mistral-7b", conv_mode=None)) == "mistral_instruct"
    assert choose_conv_mode(SimpleNamespace(model_path=None, conv_mode=None)) == "vicuna_v1"
    with caplog.at_level(logging.WARNING):
        assert choose_conv_mode(SimpleNamespace(model_path="x/llava-v1.5-7b", conv_mode="vicuna_v1")) == "vicuna_v1"
    assert "implies --conv-mode llava_v1" in caplog.text


class TestLoad:
    def test_nothing_named_is_the_embedded_model_with_its_template(self):
        model = load.load(device="cpu", pruner="divprune", visual_token_num=20)
        assert (model.name, model.conv_mode) == ("llava-shapes", "vicuna_v1")
        answer = model.answer(IMAGE, QUESTION, max_new_tokens=3)
        assert (answer.visual_tokens, answer.tokens_before, answer.tiles) == (20, 144, 1)
        assert str(answer) == answer.text != "" and answer.seconds > 0
        assert model.answer([IMAGE, IMAGE], QUESTION, max_new_tokens=1).visual_tokens == 40
        assert model.answer(None, "Is it red?", max_new_tokens=1).visual_tokens == 0

    def test_transformers_own_format_is_told_by_the_config(self, converted):
        model, own = load.load(converted, device="cpu"), load.load(device="cpu")
        pieces = []
        answer = model.answer(IMAGE, QUESTION, show=pieces.append, max_new_tokens=3)
        assert "".join(pieces).strip() == answer.text == own.answer(IMAGE, QUESTION, max_new_tokens=3).text
        assert answer.visual_tokens == answer.tokens_before == 144

    def test_what_the_other_format_alone_has_is_refused(self, converted):
        for options in ({"conv_mode": "vicuna_v1"}, {"anyres": "fixed"}):
            with pytest.raises(ValueError, match="conv_mode and anyres are for LLaVA's own format"):
                load.load(converted, device="cpu", **options)

    def test_a_template_that_is_none_is_named_before_anything_loads(self, tmp_path, monkeypatch):
        monkeypatch.setattr(load, "load_pretrained_model", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(ValueError, match="'vicuna' is unknown; valid are .*vicuna_v1"):
            load.load(conv_mode="vicuna")

    def test_a_folder_that_is_none_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="config.json is missing"):
            load.load(tmp_path)

    @pytest.mark.parametrize("wrong", [{"prunner": "divprune"}, {"visual_tokens": 3, "pruner": "divprune"}])
    def test_a_keyword_that_nobody_reads_is_named_with_all_that_are_read(self, wrong):
        with pytest.raises(TypeError, match="llava.load takes no (prunner|visual_tokens); valid are ") as refused:
            load.load("nobody/nothing", **wrong)
        valid = str(refused.value).partition("valid are ")[2].split(", ")
        assert {"pruner", "visual_token_num", "important_ratio", "device", "anyres", "max_pixels"} <= {*valid}
        assert valid == sorted({*valid}) and "options" not in valid

    def test_a_keyword_of_the_other_format_is_named_with_those_of_this(self, converted):
        for path, wrong in ((converted, "vision_dtype"), (checkpoint_path(), "max_pixels")):
            with pytest.raises(TypeError, match=f"format, takes no {wrong}; valid are .*visual_token_num") as refused:
                load.load(path, **{wrong: 9})
            assert wrong not in str(refused.value).partition("valid are ")[2].split(", ")

    def test_errors_are_about_keywords_and_those_of_programs_about_flags(self):
        with pytest.raises(ValueError, match="divprune needs a budget: visual_token_num= or keep_ratio=$"):
            load.load(pruner="divprune")
        with pytest.raises(InputError, match="divprune needs a budget: --visual_token_num or --keep_ratio$"):
            choose_pruner(parsed("--pruner", "divprune"))
        with pytest.raises(
            TypeError, match="divprune has no option theta; its options are: centered, and its budget: "
        ):
            load.load(pruner="divprune", visual_token_num=9, theta=1.0)

    def test_mps_is_said_to_be_untested_once(self, caplog):
        load._warn_of_mps.cache_clear()
        for _ in range(2):
            with pytest.raises(ValueError, match="torch sees no such device"):
                load.load(device="mps")
        assert caplog.text.count("device mps is untested") == 1

    def test_a_device_that_is_not_named_is_no_news(self, caplog, capsys):
        with caplog.at_level(logging.INFO):
            load.load().answer(None, "What is a square?", max_new_tokens=1)
        if not torch.cuda.is_available():
            assert "GPU" not in caplog.text and "cuda" not in caplog.text.lower()
            assert capsys.readouterr().out == ""


def test_loading_says_nothing_but_one_bar(capfd, caplog):
    load.load(Path(__file__).parents[1] / "e2e/checkpoints/llava-v1.5-tiny").answer(IMAGE, QUESTION, max_new_tokens=2)
    out, err = capfd.readouterr()
    assert out == caplog.text == "" and err.count("Loading weights: 100%") == 1
    assert "[transformers]" not in err and err.strip().splitlines()[-1].startswith("Loading weights: 100%")


class TestHub:
    def refused(self, monkeypatch, error):
        def snapshot_download(name):
            raise error

        monkeypatch.setattr(checkpoint, "snapshot_download", snapshot_download)
        with pytest.raises(FileNotFoundError) as found:
            load.load("owner/name")
        return str(found.value)

    def test_what_it_does_not_give_ends_with_the_command_that_would_fetch_it(self, monkeypatch):
        said = self.refused(monkeypatch, LocalEntryNotFoundError("no\nnetwork"))
        assert said.startswith("'owner/name': no such folder, and the hub does not give it (no network)")
        assert said.endswith("; where there is a network: hf download owner/name") and "\n" not in said

    def test_a_gated_one_says_how_to_get_in(self, monkeypatch):
        said = self.refused(monkeypatch, OSError("You are trying to access a gated repo."))
        assert said.endswith("accept its terms on the hub, then: hf auth login && hf download owner/name")

    def test_a_name_that_is_none_has_no_command(self):
        with pytest.raises(FileNotFoundError, match="'an owner/name': no such folder, and no hub id: ") as found:
            load.load("an owner/name")
        assert "hf download" not in str(found.value)

    def test_a_full_disk_is_no_matter_of_the_hub(self, monkeypatch):
        monkeypatch.setattr(checkpoint, "snapshot_download", lambda name: Path("/dev/full").write_text("x"))
        with pytest.raises(OSError, match="No space left"):
            load.load("owner/name")


def test_a_template_that_is_none_is_told_as_the_keyword_it_is():
    with pytest.raises(ValueError, match=r"^conv_mode 'vicuna' is unknown; valid are "):
        load.load(conv_mode="vicuna", device="cpu")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("prune_layer must be 0", "--prune_layer must be 0"),
        (
            "it needs a budget: visual_token_num= or keep_ratio=",
            "it needs a budget: --visual_token_num or --keep_ratio",
        ),
        ("load_8bit=, width= and x=3", "--load-8bit, width= and x=3"),
        ("width must be 0", "width must be 0"),
    ],
)
def test_keywords_are_told_as_flags_on_a_command_line(message, told):
    assert load.by_flags(message, ["prune_layer", "visual_token_num", "keep_ratio", "load_8bit"]) == told
