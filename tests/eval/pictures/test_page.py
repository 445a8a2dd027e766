"""The page on answers of the embedded model: whole in one file, and shown by a browser."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from llava.command import run_program
from llava.eval import model_vqa_loader
from llava.eval.__main__ import main
from llava.eval.pictures.summarize import build_parser, summarize
from llava.eval.results.made import VERSIONS
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
SETTINGS = {
    "none/full": "--pruner none",
    "uniform/vtn_0": "--pruner uniform --visual_token_num 0",
    "cdpruner/vtn_36": "--pruner cdpruner --visual_token_num 36",
    "divprune/vtn_9": "--pruner divprune --visual_token_num 9",
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Eight questions, asked and scored by the programs that the script for shapes runs."""
    base = tmp_path_factory.mktemp("eval")
    folder = base / "shapes"
    write_benchmark(folder, split="test", num_questions=8, seed=5)
    for place, options in SETTINGS.items():
        path = folder / "answers/shapes_test/llava-shapes" / place
        words = f"--question-file {folder}/shapes_test.jsonl --image-folder {folder}/images --answers-file {path}.jsonl"
        words += f" --temperature 0 --device cpu --num_workers 0 --batch_size 4 --profile {options}"
        run_program(model_vqa_loader.build_parser(), model_vqa_loader.eval_model, words.split())
        words = f"--annotation-file {folder}/shapes_test_labels.jsonl --result-file {path}.jsonl --output {path}.json"
        main(["score", "shapes", *words.split()])
    return base


def write_page(answered, path, *options):
    words = ["--eval-dir", str(answered), "--html", str(path), "--output", str(path.with_suffix(".md")), *options]
    run_program(build_parser(), summarize, words)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(answered, tmp_path_factory):
    """The page with two questions and the tokens kept of them."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    options = ["--samples", "2", "--checkpoint", checkpoint_path(), "--device", "cpu"]
    return SimpleNamespace(path=path, text=write_page(answered, path, *options))


def test_the_page_needs_no_other_file(page):
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page.text)
    assert links and all((a or b).startswith(("data:", "#")) for a, b in links)
    assert "http" not in re.sub(r'"data:[^"]*"|url\([^)]*\)', "", page.text)


def test_every_setting_shows_its_answer_and_as_many_patches_as_it_was_given(page, answered):
    figures = re.findall(r"<figure.*?</figure>", page.text, re.DOTALL)
    assert len(figures) == 2 * len(SETTINGS)
    for figure in figures:
        dropped = sum(int(width) for width in re.findall(r"h(\d+)v1", figure))
        assert 144 - dropped == int(re.search(r", (\d+) tokens", figure)[1])
        assert "asked again" not in figure
    texts = {
        answer["text"] for path in answered.glob("shapes/answers/**/*.jsonl") for answer in map(json.loads, path.open())
    }
    shown = re.findall(r'<span class="answer">(.*?)</span>', page.text)
    assert len(shown) == len(figures) and set(shown) <= texts


def test_the_picture_of_a_question_is_in_the_page_once(page):
    pictures = re.findall(r"\.p\d+ \{ background-image", page.text)
    assert len(pictures) == 2
    assert len(re.findall(r'class="view p\d+"', page.text)) == 2 * len(SETTINGS)


def test_answers_that_differ_from_the_unpruned_models_are_marked(page):
    rows = re.findall(r"<h4>(\w+)</h4>(.*?)</div>", page.text, re.DOTALL)
    by_question = [rows[i : i + len(SETTINGS)] for i in range(0, len(rows), len(SETTINGS))]
    for question in by_question:
        answers = {name: re.search(r'"answer">(.*?)<', body)[1] for name, body in question}
        for name, body in question:
            assert ('">changed</span>' in body) == (answers[name] != answers["none"])


def test_an_answer_that_the_model_does_not_give_now_is_reported(answered, tmp_path):
    copy = tmp_path / "eval"
    shutil.copytree(answered, copy)
    (path,) = copy.rglob("divprune/vtn_9.jsonl")
    path.write_text(re.sub(r'"text": "[^"]*"', '"text": "heptagon"', path.read_text()))
    options = ["--samples", "1", "--checkpoint", checkpoint_path(), "--device", "cpu"]
    figures = re.findall(r"<figure.*?</figure>", write_page(copy, tmp_path / "page.html", *options), re.DOTALL)
    assert ["asked again: 9 tokens" in figure for figure in figures] == ["heptagon" in figure for figure in figures]
    assert sum("heptagon" in figure for figure in figures) == 1


def test_without_the_model_the_image_and_the_way_to_the_tokens_are_shown(answered, tmp_path):
    text = write_page(answered, tmp_path / "page.html", "--samples", "1")
    assert "--checkpoint FOLDER finds it out" in text
    assert len(re.findall(r'class="view p\d+"', text)) == 1 and text.count("<figure") == len(SETTINGS)


def test_what_keeps_questions_from_being_shown_is_said_in_their_place(answered, tmp_path):
    copy = tmp_path / "eval"
    shutil.copytree(answered, copy)
    (copy / "shapes/shapes_test.jsonl").unlink()
    assert "cannot read" in write_page(copy, tmp_path / "page.html")
    for path in copy.rglob("answers/**/*.jsonl"):
        path.unlink()
    shutil.copy(answered / "shapes/shapes_test.jsonl", copy / "shapes")
    assert "The answers are not beside the results." in write_page(copy, tmp_path / "page.html")


def test_without_matplotlib_the_program_says_how_to_get_it(answered, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"needs matplotlib.*: pip install '\.\[eval\]'"):
        write_page(answered, tmp_path / "page.html")


def test_text_from_files_cannot_break_the_page(answered, tmp_path):
    copy = tmp_path / "eval"
    shutil.copytree(answered, copy)
    for path in copy.rglob("answers/**/*.jsonl"):
        lines = [json.loads(line) | {"text": "<script>alert('1')</script>"} for line in path.open()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_page(copy, tmp_path / "page.html")
    assert "<script" not in text and "&lt;script&gt;" in text


def captions(page):
    """What stands below the pictures: the kind of every figure and its text, by pruner."""
    figures = re.findall(r'<h4>(\w+)</h4><figure class="([^"]*)".*?class="answer">(.*?)</span>', page, re.DOTALL)
    return [(pruner, kind.split(), text) for pruner, kind, text in figures]


def test_right_and_wrong_go_by_the_labels_and_not_by_what_changed(page, answered):
    labels = [json.loads(line)["answer"] for line in (answered / "shapes/shapes_test_labels.jsonl").open()]
    found = captions(page.text)
    truths = re.findall(r"Right answer: <b>(.*?)</b>", page.text)
    assert len(truths) == 2 and set(truths) <= set(labels)
    for number, (_, kind, text) in enumerate(found):
        right = text.lower() == truths[number // len(SETTINGS)].lower()
        assert kind[0] == ("right" if right else "wrong")
    style = page.text[: page.text.index("</style>")]
    assert ".wrong .answer { color: #b3261e; }" in style and ".changed .answer" not in style
    assert "changed: another answer than the one without a pruner" in page.text


def test_the_page_has_counts_times_memory_and_how_the_results_were_made(page):
    assert re.search(r"\d of 8 questions are answered otherwise by some pruner; shown are 2\.", page.text)
    titles = re.findall(r"<h3>(.*?)</h3>", page.text)
    assert titles[:4] == ["shapes: scores", "Time", "Memory", "Environment"]
    rows = dict(re.findall(r'data-name="what">(.*?)</td><td class="word" data-name="value">(.*?)</td>', page.text))
    assert rows["checkpoint"] == "llava-shapes" and rows["device"] == "cpu" and rows["precision"] == "float32"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", rows["date"]) and {"hardware", "threads", *VERSIONS} <= rows.keys()
    assert re.search(r"Written on \d{4}-\d\d-\d\d by llava \d", page.text)
    faster = re.findall(r'data-name="times faster">(.*?)</td>', page.text)
    assert len(faster) == len(SETTINGS) and faster[0] == "1.00" and "" not in faster
    selection = re.findall(r'data-name="selection">(.*?)</td>', page.text)
    assert selection[0] == "0.0" and len(selection) == len(SETTINGS)
    held = [float(text) for text in re.findall(r'data-name="cache of visual tokens">(.*?)</td>', page.text)]
    assert held == sorted(held, reverse=True) and held[-1] == 0 and held[0] > 0  # uniform keeps none here


def test_of_one_benchmark_no_average_repeats_the_score(page):
    assert "average" not in re.findall(r"<th[^>]*>(.*?)</th>", page.text)


def test_an_answer_that_is_empty_is_told_as_none(answered, tmp_path):
    copy = tmp_path / "eval"
    shutil.copytree(answered, copy)
    for path in copy.rglob("divprune/vtn_9.jsonl"):
        path.write_text("".join(json.dumps(json.loads(line) | {"text": " "}) + "\n" for line in path.open()))
    text = write_page(copy, tmp_path / "page.html", "--samples", "1")
    assert [said for pruner, _, said in captions(text) if pruner == "divprune"] == ["(no answer)"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
@pytest.mark.parametrize("width", [420, 1400])
def test_no_window_is_too_narrow_for_a_table(page, tmp_path, width):
    told = "document.title = [...document.querySelectorAll('td, th')].filter(e => e.offsetWidth && "
    told += "e.getBoundingClientRect().right > innerWidth).length + ' cut, ' + document.documentElement.scrollWidth"
    frame = tmp_path / "frame.html"
    inner = page.text.replace("</body>", f"<script>{told}; parent.postMessage(document.title, '*')</script></body>")
    (tmp_path / "inner.html").write_text(inner, encoding="utf-8")
    # A headless window is never narrower than 500 pixels, a frame within it is.
    script = "onmessage = m => document.body.append(`found ${m.data}`)"
    frame.write_text(f"<script>{script}</script><iframe src=inner.html width={width} height=900></iframe>")
    command = [CHROMIUM, *QUIET.split(), f"--user-data-dir={tmp_path}/profile", "--window-size=1600,1000"]
    run = subprocess.run([*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=600)
    cut, content = re.search(r"found (\d+) cut, (\d+)", run.stdout).groups()
    assert int(cut) == 0 and int(content) <= width


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
def test_a_browser_shows_plot_answers_and_covered_patches(page, tmp_path):
    def photograph(path):
        shot = path.with_suffix(".png")
        words = f"--disable-component-update --disable-sync --user-data-dir={tmp_path}/profile --window-size=1200,2400"
        command = [CHROMIUM, *QUIET.split(), *words.split(), f"--screenshot={shot}", path.as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stdout + run.stderr
        with Image.open(shot) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    def area(red, green, blue):
        return (np.abs(covered - (red, green, blue)).max(axis=-1) < 6).sum()

    covered = photograph(page.path)
    assert area(0x00, 0x72, 0xB2) > 50 and area(0xD5, 0x5E, 0x00) > 50  # lines of CDPruner and DivPrune
    assert area(0xB3, 0x26, 0x1E) > 20  # an answer that is wrong
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r' d="[^"]*"', "", page.text))  # the same without the paths over dropped patches
    uncovered = photograph(bare)
    changed = (uncovered != covered).any(axis=-1)
    assert changed.sum() > 20_000
    assert (covered[changed].sum(axis=-1) > uncovered[changed].sum(axis=-1)).mean() > 0.95
