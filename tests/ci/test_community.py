"""The files for those who contribute, cite or report: they can be read, and what they name is there."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import CLIPVisionConfig, LlamaConfig, VipLlavaConfig, VipLlavaForConditionalGeneration

import llava
from llava.eval.ask.plan import plan_of
from llava.eval.tasks import TASKS
from llava.eval.tasks.base import Given
from llava.pruners import PRUNERS, VisualCues
from llava.pruning import prune
from llava.pruning.families import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
(PHONY,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
(EXTRAS,) = re.findall(r"^EXTRAS := (.*)$", MAKEFILE, re.MULTILINE)
TARGETS = {*PHONY.split(), *(f"test-{extra}" for extra in EXTRAS.split())}


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def example():
    """A function that runs the code under a heading of the page, and returns its names."""

    def run(heading: str) -> dict:
        (code,) = re.findall(
            r"```python\n(.*?)```", PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0], re.DOTALL
        )
        names = {"__name__": "documented"}
        exec(code, names)
        return names

    return run


def test_the_citation_has_what_its_format_asks_for_and_the_version_of_the_package():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == llava.__version__
    for entry in (citation, *citation["references"]):
        assert entry["title"] and entry["authors"] and entry["type"]
        assert all(set(author) <= {"name", "family-names", "given-names"} for author in entry["authors"])


def test_every_paper_of_the_bibliography_is_a_reference_of_the_citation():
    cited = {entry["url"] for entry in read(ROOT / "CITATION.cff")["references"]}
    text = (ROOT / "CITATION.bib").read_text(encoding="utf-8")
    papers = {f"https://arxiv.org/abs/{number}" for number in re.findall(r"arXiv:([\d.]+)", text)}
    assert cited == papers | set(re.findall(r"\\url\{([^}]+)\}", text))


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_an_issue_form_has_what_the_host_asks_for(path):
    form = read(path)
    assert form["name"] and form["description"]
    questions = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in questions}) == len(questions)
    for item in questions:
        assert item["type"] in ("input", "textarea", "dropdown", "checkboxes") and item["attributes"]["label"]
        assert all(isinstance(option, str | dict) for option in item["attributes"].get("options", []))


def test_a_bug_is_reported_with_what_the_doctor_says_and_a_pruner_with_its_licence():
    assert "llava doctor env" in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()
    assert "licence" in (ROOT / ".github/ISSUE_TEMPLATE/pruner.yml").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_is_a_target_of_the_makefile(path):
    for job in read(path)["jobs"].values():
        (command,) = (step["run"] for step in job["steps"] if "run" in step)
        named = job["strategy"]["matrix"]["target"] if "matrix.target" in command else [command.removeprefix("make ")]
        assert command == ".ci/run" or set(named) <= TARGETS, command


def test_pythons_without_a_run_are_tried_and_fail_nothing():
    job = read(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]
    matrix, tested = job["strategy"]["matrix"], (ROOT / "docs" / "tested.md").read_text(encoding="utf-8")
    assert job["continue-on-error"] == "${{ matrix.not-run-yet }}" and matrix["not-run-yet"] == [False]
    for entry in matrix["include"]:
        assert entry["not-run-yet"] and f"Linux, Python {entry['python-version']} |" in tested
    every = [*matrix["python-version"], *(entry["python-version"] for entry in matrix["include"])]
    (line,) = re.findall(r"^# Python: (.*)$", (ROOT / ".ci/constraints.txt").read_text(), re.MULTILINE)
    assert every == line.split()


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md"])
def test_what_a_page_names_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert all((ROOT / name).parent.joinpath(link).exists() for link in links)
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) - {"sure"} <= TARGETS
    for path in re.findall(r"`((?:tests|llava|\.ci)/[\w/.]+)`", text):
        new = ("longest.py", "counting.py", "vip_llava.py")
        assert (ROOT / path).exists() or path.endswith(new), path


def test_the_documented_pruner_keeps_the_longest(example):
    pruner = example("A pruner")["Longest"](visual_token_num=2)
    embeds = torch.tensor([[3.0, 1.0, 4.0, 1.0, 5.0]]).unsqueeze(2) * torch.ones(3)  # (1, 5, 3)
    assert pruner(VisualCues(None, embeds)).tolist() == [[2, 4]]
    assert "longest" not in PRUNERS


def test_the_documented_benchmark_scores_its_answers(example, monkeypatch):
    task = example("A benchmark")["COUNTING"]
    monkeypatch.setitem(TASKS, "counting", task)
    answers = [{"question_id": number, "text": text} for number, text in enumerate((" 3", "four"))]
    labels = [{"question_id": number, "count": count} for number, count in enumerate((3, 4))]
    result = task.score(Given(answers, annotations=[labels]))
    assert task.report(result) == "Accuracy: 50.00%" and result.unparsable == 1
    assert "counting/counting_test.jsonl" in " ".join(plan_of(["counting", "v1_5", "64"], {}).asking[0])


def test_the_documented_family_is_pruned_and_is_itself_when_all_is_kept(example, monkeypatch):
    monkeypatch.setitem(FAMILIES, "VipLlavaForConditionalGeneration", example("A family of models")["VipLlavaFamily"])
    torch.manual_seed(0)
    sizes = {"intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, hidden_size=24, image_size=8, patch_size=2),
        text_config=LlamaConfig(**sizes, hidden_size=32, vocab_size=96, pad_token_id=0, eos_token_id=95),
        image_token_index=90,
        vision_feature_layers=[-2, -3],
    )
    model = VipLlavaForConditionalGeneration(config).eval()
    inputs = {"input_ids": torch.tensor([[1, *[90] * 16, 5]]), "pixel_values": torch.randn(1, 3, 8, 8)}
    with torch.no_grad():
        expected = model(**inputs).logits
        with prune(model, "vispruner", visual_token_num=16):
            assert torch.equal(model(**inputs).logits, expected)
        with prune(model, "vispruner", visual_token_num=4) as record:
            assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape == (1, 20)
    assert record.visual_tokens == [4]
