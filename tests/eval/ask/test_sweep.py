"""A sweep on the embedded model is its runs, one by one, but that the model is loaded once."""

import json
import re
from pathlib import Path

import pytest

from llava.asking.llava import LlavaModel
from llava.eval import model_vqa_loader
from llava.eval.__main__ import main
from llava.eval.ask import several
from llava.eval.ask.plan import plan_of
from llava.eval.ask.sweep import _score, runs_of
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.pruners import PRUNERS
from llava.records import InputError
from llava.shapes.benchmark import write_benchmark

QUESTIONS = 9
SPECS = "none,cdpruner,trim,fastv,random:seed=1,divprune:positions=original"
WORDS = ["shapes", "v1_5", "--pruners", SPECS, "--budgets", "18,0.0625", "--device", "cpu", "--num_workers", "0"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder of its own, with a small benchmark where runs look for it; returns where answers go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    data = tmp_path / "playground/data/eval/shapes"
    write_benchmark(data, split="test", num_questions=QUESTIONS, seed=3)
    return data / "answers/shapes_test/llava-shapes"


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The pruners that models are loaded with."""
    found, load = [], several.load_model

    def load_model(args, pruner):
        found.append(type(pruner).__name__)
        return load(args, pruner)

    monkeypatch.setattr(several, "load_model", load_model)
    return found


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many questions each call of the model answers."""
    found, answer = [], LlavaModel.answer_items

    def answer_items(self, items, *args, **kwargs):
        found.append(len(items))
        return answer(self, items, *args, **kwargs)

    monkeypatch.setattr(LlavaModel, "answer_items", answer_items)
    return found


def lines(path: Path) -> list[dict]:
    """Answers without what is new in every run: their ids, and how long they took."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        del line["answer_id"]
        line["metadata"].pop("latency_ms", None)
    return found


def files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.jsonl"))}


NAMES = [
    *("cdpruner/ratio_0.0625.jsonl", "cdpruner/vtn_18.jsonl"),
    *("divprune/ratio_0.0625_positionsoriginal.jsonl", "divprune/vtn_18_positionsoriginal.jsonl"),
    *("fastv/ratio_0.0625_prune_layer2.jsonl", "fastv/vtn_18_prune_layer2.jsonl", "none/full.jsonl"),
    *("random/ratio_0.0625_seed1.jsonl", "random/vtn_18_seed1.jsonl"),
    *("trim/ratio_0.0625.jsonl", "trim/vtn_18.jsonl"),
]


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_answers_records_and_files_are_those_of_the_runs(place, loads, asked, capsys, batch_size):
    main(["sweep", *WORDS, "--batch_size", batch_size])
    assert loads == ["CDPruner"] and sum(asked) == len(NAMES) * QUESTIONS
    swept = {name: lines(path) for name, path in files(place).items()}
    assert list(swept) == NAMES and all(len(found) == QUESTIONS for found in swept.values())
    parser = model_vqa_loader.build_parser()
    for run in runs_of([*WORDS, "--batch_size", batch_size])[0]:
        plan = plan_of(run, {})
        model_vqa_loader.eval_model(parser.parse_args([*plan.asking[0][2:], "--answers-file", "alone.jsonl"]))
        assert lines(Path("alone.jsonl")) == swept[str(Path(plan.answers).relative_to(place.relative_to(Path.cwd())))]
        header, own = (json.loads(Path(f"{path}.run").read_text()) for path in (plan.answers, "alone.jsonl"))
        assert header["files"] == own["files"]
        assert header["settings"] == own["settings"]
        Path("alone.jsonl").unlink()
        Path("alone.jsonl.run").unlink()
    assert capsys.readouterr().out.count("| shapes |") == 1


@pytest.fixture
def read(monkeypatch) -> dict[str, list[int]]:
    """How many images every pass of the tower's blocks and of the projector reads."""
    found = {"tower": [], "projector": []}
    run, build = CLIPVisionTower._run, several.load_model

    def counted(self, images, *args):
        found["tower"].append(len(images))
        return run(self, images, *args)

    def load_model(args, pruner):
        loaded = build(args, pruner)
        projector = loaded.model.get_model().mm_projector
        projector.register_forward_hook(lambda _, inputs, output: found["projector"].append(len(output)))
        return loaded

    monkeypatch.setattr(CLIPVisionTower, "_run", counted)
    monkeypatch.setattr(several, "load_model", load_model)
    return found


def test_every_image_is_read_once_for_all_pruners_and_budgets(place, read):
    main(["sweep", *WORDS, "--batch_size", "4"])
    assert read["tower"] == [4, 4, 1]
    merging = 2 * [4, 4, 1]  # trim at two budgets merges first, and projects what that comes to
    assert sorted(read["projector"]) == sorted([4, 4, 1] + merging)


def test_alone_every_pruner_and_budget_reads_its_own(place, read):
    for words in ("none", "cdpruner", "trim"):
        main(["sweep", *[word.replace(SPECS, words) for word in WORDS], "--batch_size", "9"])
    assert read["tower"] == [9, 9, 9]


def test_one_table_holds_every_row_with_its_comparison(place, capsys):
    main(["sweep", *WORDS, "--limit", "6", "--batch_size", "6"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(NAMES) and rows[0][0] == "| none" and "limit6" in rows[0][1]
    assert all("p=" in row[3] for row in rows[1:]) and "p=" not in rows[0][3]


def test_a_page_of_the_first_questions_says_so_and_how_pruners_do_beside_none(place):
    main(["sweep", *[word.replace(SPECS, "none,trim") for word in WORDS], "--limit", "6", "--batch_size", "6"])
    main(["table", "--html", "page.html", "--output", "table.md"])
    page = Path("page.html").read_text()
    assert "limit6" in page and "McNemar" in page
    compared = re.findall(r'data-name="right only (?:un)?pruned">(\d?)</td>', page)
    assert compared[:2] == ["", ""] and len(compared) == 6 and all(compared[2:])  # trim at both budgets
    assert page.count("<details") == 6 and "other questions, or unfinished" not in page


def test_a_budget_that_follows_the_picture_is_swept_as_it_runs(place, read):
    words = [*WORDS[:3], "none,cdpruner:budget=mass,vispruner", "--budgets", "18", *WORDS[6:], "--batch_size", "4"]
    main(["sweep", *words])
    assert read["tower"] == [4, 4, 1]
    plan = plan_of(runs_of(words)[0][1], {})
    model_vqa_loader.eval_model(
        model_vqa_loader.build_parser().parse_args([*plan.asking[0][2:], "--answers-file", "alone.jsonl"])
    )
    swept = lines(Path(plan.answers))
    assert swept == lines(Path("alone.jsonl")) and all(line["metadata"]["budgets"] for line in swept)


def test_an_option_that_is_on_without_a_value_is_swept(place):
    main(["sweep", *WORDS[:3], "cdpruner:centered,cdpruner:centered=plain", "--budgets", "18", *WORDS[6:]])
    assert list(files(place)) == ["cdpruner/vtn_18_centered.jsonl", "cdpruner/vtn_18_centeredplain.jsonl"]


def test_what_a_server_scores_is_made_ready_for_it(capsys):
    done = []
    plans = [plan_of(["vqav2", "v1_5", "64", "--pruner", "trim", *more], {}) for more in ([], ["--limit", "5"])]
    _score(plans, done.append)
    assert [words[:2] for words in done] == [["submit", "vqav2"]]
    ready, part = capsys.readouterr().out.splitlines()
    assert ready.startswith("not scored here: submit ./playground/data/eval/vqav2/answers_upload")
    assert part.startswith("not scored here: submit nothing, as https://eval.ai")


def test_a_sweep_goes_on_where_it_was_cut(place, asked, loads):
    words = [*WORDS, "--batch_size", "4"]
    main(["sweep", *words])
    whole, found = {name: lines(path) for name, path in files(place).items()}, files(place)
    for name, kept in (("none/full.jsonl", 0), ("trim/vtn_18.jsonl", 2), ("fastv/vtn_18_prune_layer2.jsonl", 7)):
        text = found[name].read_text().splitlines(keepends=True)
        found[name].write_text("".join(text[:kept]))
    cut = found["cdpruner/vtn_18.jsonl"]
    cut.write_text(cut.read_text()[:-5])  # in the midst of a line
    asked.clear()
    main(["sweep", *words])
    assert sum(asked) == 9 + 7 + 2 + 1
    assert {name: lines(path) for name, path in files(place).items()} == whole
    asked.clear()
    loads.clear()
    main(["sweep", *words])
    assert not asked and not loads


def test_what_runs_answered_is_not_asked_again(place, asked):
    plan = plan_of(["shapes", "v1_5", "18", "--pruner", "trim", "--device", "cpu", "--num_workers", "0"], {})
    model_vqa_loader.eval_model(model_vqa_loader.build_parser().parse_args(plan.asking[0][2:]))
    asked.clear()
    main(["sweep", *[word.replace(SPECS, "none,trim") for word in WORDS]])
    assert sum(asked) == 2 * QUESTIONS  # none, and trim at a share


def test_an_image_that_cannot_be_read_ends_it_or_is_noted_for_each(place):
    words = ["sweep", *[word.replace(SPECS, "none,divprune") for word in WORDS], "--batch_size", "4"]
    image = json.loads((place.parents[2] / "shapes_test.jsonl").read_text().splitlines()[0])["image"]
    (place.parents[2] / "images" / image).write_text("no image")
    with pytest.raises(SystemExit, match=r"cannot read the image .*; the answers so far are saved"):
        main(words)
    main([*words, "--on-error", "skip"])
    for path in files(place).values():
        assert "cannot read the image" in lines(path)[0]["metadata"]["error"]


def test_dry_run_prints_the_runs(place, capsys):
    main(["sweep", "gqa", "v1_6", "--pruners", "none,fastv", "--budgets", "64,32", "--limit", "5", "--dry-run"])
    assert capsys.readouterr().out.splitlines() == [
        "python -m llava.eval run gqa v1_6 --pruner none --limit 5",
        "python -m llava.eval run gqa v1_6 --pruner fastv --prune_layer=2 --visual_token_num 64 --limit 5",
        "python -m llava.eval run gqa v1_6 --pruner fastv --prune_layer=2 --visual_token_num 32 --limit 5",
    ]


def test_all_is_every_pruner_there_is_and_none():
    runs, _ = runs_of(["shapes", "v1_5", "--pruners", "all", "--budgets", "36"])
    assert [run[3] for run in runs] == ["none", *PRUNERS]
    assert len({plan_of(run, {}).answers for run in runs}) == len(runs)
    some, _ = runs_of(["gqa", "v1_5", "--pruners", "all,-trim,-none,trim:text_chunking=bos_eos", "--budgets", "36"])
    assert [run[3] for run in some] == [*(name for name in PRUNERS if name != "trim"), "trim"]
    assert some[-1][4:] == ["--text_chunking=bos_eos", "--visual_token_num", "36"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--budgets 36", "--pruners is missing: all, or some of none, cdpruner"),
        ("--pruners cdpruner", "--budgets is missing, such as --budgets 64,128"),
        ("--pruners sharpest --budgets 36", "--pruners: unknown pruner 'sharpest'; the known ones are none, cdpruner"),
        ("--pruners cdpruner --budgets 36,many", "--budgets: 'many' is neither a number of tokens nor a share"),
        ("--pruners cdpruner --budgets 1.5", "--budgets: '1.5' is neither"),
        ("--pruners cdpruner:batch_size=3 --budgets 36", "--pruners: 'batch_size=3' is no option of a pruner"),
        ("--pruners cdpruner --budgets 36 --pruner trim", "--pruner is not for a sweep: --pruners and --budgets"),
        ("--pruners cdpruner --budgets 36 --engine vllm", "--engine is not for a sweep: give it to a run"),
        ("--pruners cdpruner --budgets 36 --profile", "--profile is not for a sweep: give it to a run"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(words, error):
    with pytest.raises(InputError) as refused:
        runs_of(["shapes", "v1_5", *words.split()])
    assert str(refused.value).startswith(error)


def test_texts_are_cut_in_one_way(place, loads):
    words = [word.replace(SPECS, "cdpruner,trim:text_chunking=bos_eos") for word in WORDS]
    with pytest.raises(SystemExit, match="text_chunking is CLIP's text side's, which a sweep has one of"):
        main(["sweep", *words])
    assert not loads and not place.exists()


def test_help_says_how_pruners_are_named(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert "cdpruner:theta=0.5, random:seed=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            "--pruners none,vispruner:important_ratio=7",
            "vispruner: --important_ratio must be a number in [0, 1], not 7",
        ),
        ("--pruners none,divprune:theta=1", "divprune has no option theta; its options are: centered"),
        ("--pruners none,fastv --budget spectral", "fastv: --budget 'spectral' measures projected tokens: it needs"),
        ("--pruners none,cdpruner --limit 0", "none: argument --limit: '0' is not an integer of at least 1"),
    ],
)
def test_what_a_run_refuses_is_one_line_before_a_model_loads(place, loads, capsys, words, error):
    with pytest.raises(SystemExit) as refused:
        main(["sweep", "shapes", "v1_5", *words.split(), "--budgets", "36"])
    assert str(refused.value).startswith(f"python -m llava.eval sweep: error: {error}")
    assert not any(capsys.readouterr()) and not loads and not place.exists()


def test_how_a_choice_is_applied_says_nothing_of_a_run_without_a_pruner(place, capsys):
    main(["sweep", *WORDS[:3], "none,uniform", "--budgets", "18", *WORDS[6:], "--budget", "mass", "--mass", "0.5"])
    assert list(files(place)) == ["none/full.jsonl", "uniform/vtn_18_budgetmass_mass0.5.jsonl"]
    assert "| none | full | 144 |" in capsys.readouterr().out
    main(["run", "shapes", "v1_5", "--pruner", "none", *WORDS[6:]])  # goes on with it: nothing is missing
    main(["run", "shapes", "v1_5", "--pruner", "none", *WORDS[6:], "--prune_layer", "2"])
    assert len(lines(place / "none/full.jsonl")) == QUESTIONS
