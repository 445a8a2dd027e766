"""What the parts of a GPU run do, here on a CPU with a tiny model."""

import json

import pytest
import torch

from llava.bench.gpu import answers, asked, golden, image_side, parts, saturation
from llava.bench.gpu.setting import Setting, Wrong
from llava.pruners import PRUNERS, resolve_pruner
from tests import check_golden

SMALL = Setting("cpu", small=True)
MAIN = {"cdpruner", "divprune", "vispruner", "mfpruner"}


@pytest.fixture(autouse=True)
def built_once(monkeypatch, model):
    monkeypatch.setattr(Setting, "model", lambda setting: model)


def run(name, tmp_path, setting=SMALL):
    file = tmp_path / "part.json"
    parts.write(parts.PARTS[name], setting, file)
    return json.loads(file.read_text())


def test_every_recorded_selection_is_chosen(tmp_path):
    result = run("golden", tmp_path)
    assert result["done"] and all(row["equal"] for row in result["rows"])
    assert {row["method"] for row in result["rows"]} == set(check_golden.MAKE)
    others = tuple(check_golden.OTHERS)
    held = [path for path in check_golden.files(golden.GOLDEN) if not path.name.startswith(others)]
    assert [row["file"] for row in result["rows"]] == [path.stem for path in held]


def test_another_choice_is_named_and_what_was_found_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "expected", lambda case: case["indices"].flip(1))
    result = run("golden", tmp_path)
    wrong = [row["file"] for row in result["rows"] if not row["equal"]]
    assert "done" not in result and len(wrong) > 5
    assert (
        f"{len(wrong)} of {len(result['rows'])} selections differ" in result["reason"] and wrong[-1] in result["reason"]
    )


def test_without_recorded_selections_nothing_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "GOLDEN", tmp_path)
    assert "no selections" in run("golden", tmp_path)["reason"]


MARKED = """
import pytest

@pytest.mark.gpu
def test_good():
    pass

def test_of_a_cpu():
    assert False
"""


@pytest.fixture
def marked(monkeypatch, tmp_path):
    """Let the tests of the repository be one file."""
    folder = tmp_path / "repository" / "tests"
    folder.mkdir(parents=True)
    (folder / "test_without.py").write_text("raise RuntimeError")
    (folder.parent / "pytest.ini").write_text("[pytest]\naddopts = -m 'not gpu'\nmarkers = gpu: of a GPU\n")
    monkeypatch.setattr(parts, "TESTS", folder)
    return folder / "test_marked.py"


def test_the_tests_of_a_gpu_are_run_alone(marked, tmp_path):
    marked.write_text(MARKED)
    result = run("tests", tmp_path, Setting("cuda"))
    assert result["done"] and [(row["test"], row["outcome"]) for row in result["rows"]] == [("test_good", "passed")]


@pytest.mark.parametrize("body", ["assert False", "raise SystemError"])
def test_one_that_fails_fails_the_part_and_is_named(marked, tmp_path, body):
    marked.write_text(MARKED.replace("pass", body))
    result = run("tests", tmp_path, Setting("cuda"))
    assert "done" not in result and "status 1" in result["reason"]
    assert [(row["test"], row["outcome"]) for row in result["rows"]] == [("test_good", "failure")]


def test_a_gpu_without_tests_is_no_success(marked, tmp_path):
    marked.write_text(MARKED.replace("@pytest.mark.gpu", "# mark.gpu"))
    assert "after 0 tests" in run("tests", tmp_path, Setting("cuda"))["reason"]


def test_the_image_side_has_a_row_for_each_pruner_and_kind_of_question(tmp_path):
    result = run("image_side", tmp_path)
    rows = {(row["method"], row["question"]): row for row in result["rows"]}
    assert set(rows) == {("none", "-"), ("uniform", "-"), ("divprune", "-"), ("vispruner", "-")} | {
        (method, question) for method in ("cdpruner", "mfpruner") for question in ("known", "new")
    }
    assert len(result["notes"]) == 1 and "cuda_graphs" in result["notes"][0]
    assert not any(row["graphs"] for row in rows.values())
    none, uniform = rows["none", "-"], rows["uniform", "-"]
    assert (none["T"], uniform["T"], none["first_token_of_none"]) == (16, 1, 1)
    for (method, _), row in rows.items():
        assert row["first_token_of_none"] == row["first_token_ms"] / none["first_token_ms"]  # of one round
        if method in MAIN:
            assert row["over_uniform_ms"] == row["image_side_ms"] - uniform["image_side_ms"]
            assert row["share_of_prefill"] == row["over_uniform_ms"] / row["prefill_ms"]


def test_what_takes_turns_is_compared_round_by_round(monkeypatch):
    slow = iter([1, 1, 3, 3, 1, 1])  # the second round is three times as slow
    taken = {"a": 10.0, "b": 11.0}
    made, calls = [], {name: (lambda name=name: made.append(name), lambda name=name: name) for name in taken}
    monkeypatch.setattr(image_side, "sample", lambda call, device: (0.0, taken[call()] * next(slow), None))
    samples = image_side.in_turn(calls, Setting("cpu"), rounds=3)
    assert made == list("ab" * 3) and [wall for _, wall, _ in samples["b"]] == [11, 33, 11]
    assert image_side.ratio(samples["b"], samples["a"]) == pytest.approx(1.1)
    assert image_side.difference(samples["b"], samples["a"]) == pytest.approx(1)


@pytest.mark.parametrize(("warm", "expected"), [(1, 2 * 3), (3, 2 * 3 + 2)])
def test_every_sample_follows_a_call_and_the_first_several(warm, expected):
    calls = []
    image_side.in_turn({"a": (lambda: None, lambda: calls.append(1))}, Setting("cpu"), rounds=3, warm=warm)
    assert len(calls) == expected


def test_a_model_that_has_graphs_is_measured_without_and_then_with(model, monkeypatch):
    switched = []
    monkeypatch.setattr(type(model), "cuda_graphs", property(lambda m: False, lambda m, on: switched.append(on)))
    assert [row.get("graphs") for row in image_side.run(SMALL)] == [False] * 8 + [True] * 8
    assert [row.get("graphs") for row in answers.run(SMALL)] == [False] * 5 + [None] * 2 + [True] * 5
    assert switched == [True] * 2


def test_a_model_that_cannot_have_graphs_here_says_why(model):
    *rows, note = image_side.run(SMALL)
    assert note["note"].startswith("cuda_graphs")
    assert not any(row["graphs"] for row in rows)


def test_a_new_question_is_none_that_was_asked_before(model):
    pruner = resolve_pruner("cdpruner", visual_token_num=4)
    known, *new = (asked.Asked(model, pruner, 2, new_questions=new) for new in (False, True, True))
    known.prepare()
    relevance = model.get_vision_tower().relevance
    known.image_side()
    before = len(relevance._embeddings)
    known.image_side()
    assert len(relevance._embeddings) == before
    for calls in new:
        calls.image_side()
        calls.first_token()
    assert len(relevance._embeddings) == before + 8


@torch.no_grad()
def test_the_image_side_ends_with_the_embeddings_of_the_prompts(model):
    calls = asked.Asked(model, resolve_pruner("divprune", visual_token_num=4), 2)
    calls.prepare()
    embeds = calls.image_side()[4]
    assert embeds.shape == (2, 64 + 4, model.config.hidden_size)


def test_serving_is_measured_at_every_batch_with_and_without_and_of_all_pruners_where_one_is_best(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(saturation, "speed", lambda samples, batch: {"images_per_second": 1 / batch, "noisy": False})
    rows = run("saturation", tmp_path)["rows"]
    assert [(row["method"], row["question"], row["B"]) for row in rows] == [
        ("none", "known", 8),
        ("cdpruner", "known", 8),
        ("none", "known", 1),
        ("cdpruner", "known", 1),
        ("cdpruner", "new", 1),
        ("divprune", "known", 1),
        ("vispruner", "known", 1),
        ("mfpruner", "known", 1),
        ("mfpruner", "new", 1),
    ]
    assert [row["visual"] for row in rows[:2]] == [16, 1]


def test_a_batch_without_room_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    whole = asked.Asked.answer

    def answer(calls, new_tokens):
        if calls.pruner is None and calls.batch > 1:
            raise torch.OutOfMemoryError("no room")
        return whole(calls, new_tokens)

    monkeypatch.setattr(asked.Asked, "answer", answer)
    result = run("saturation", tmp_path)
    assert result["done"] and [row.get("out_of_memory") for row in result["rows"][:4]] == [True, None, None, None]
    assert "images_per_second" not in result["rows"][0]


@pytest.mark.parametrize(
    ("name", "suites"),
    [("select", {"select": 4}), ("stages", {"clip": 1, "prefill": 4, "e2e": 5}), ("embedded", {"serve": 2})],
)
def test_the_suites_of_the_benchmark_are_parts(name, suites, tmp_path):
    result = run(name, tmp_path)
    found = [row["suite"] for row in result["rows"]]
    assert result["done"] and {suite: found.count(suite) for suite in found} == suites


def test_answers_are_measured_of_all_pruners_and_the_largest_batch_of_two(tmp_path):
    rows = run("answers", tmp_path)["rows"]
    assert {row["method"] for row in rows if "answer_ms" in row} == {"none", *MAIN}
    assert [row["method"] for row in rows if "largest_batch" in row] == ["none", "cdpruner"]


def test_what_a_part_yields_is_there_before_it_fails(tmp_path):
    def fails(setting):
        yield {"a": 1}
        yield {"note": "something is missing"}
        assert json.loads((tmp_path / "part.json").read_text())["rows"] == [{"a": 1}]
        yield {"b": float("nan")}

    parts.write(parts.Part(fails, 1), SMALL, tmp_path / "part.json")
    result = json.loads((tmp_path / "part.json").read_text())
    assert (result["rows"], result["notes"]) == ([{"a": 1}], ["something is missing"])
    assert result["reason"].startswith("ValueError") and "done" not in result


def test_what_is_wrong_is_said_in_its_own_words(tmp_path):
    def wrong(setting):
        raise Wrong("it is not as it should be")
        yield

    parts.write(parts.Part(wrong, 1), SMALL, tmp_path / "part.json")
    assert json.loads((tmp_path / "part.json").read_text())["reason"] == "it is not as it should be"


def test_the_main_pruners_are_those_of_the_golden_files():
    assert MAIN <= set(check_golden.MAKE) and MAIN <= set(PRUNERS)
