"""The doctor on whole benchmarks as their releases lay them out, and on what goes wrong with each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llava.asking.prompts import SHORT_ANSWER
from llava.command import run_program
from llava.eval.doctor.data import build_parser, diagnose, run_doctor
from llava.eval.doctor.findings import can_go_on
from llava.eval.tasks import TASKS


def problems(name, folder, **options):
    return [finding for finding in diagnose(name, folder, **options) if finding.is_problem]


@pytest.fixture
def pope(put, tmp_path):
    """POPE with its first release of labels: three categories of 3000, 3000 and 2910 questions."""
    questions = []
    for category, rows in (("adversarial", 3000), ("popular", 3000), ("random", 2910)):
        labels = [{"image": "a.jpg", "text": f"Is there a {category} {i}?", "label": "yes"} for i in range(rows)]
        lines = put(f"pope/coco/{category}.jsonl", labels)
        Path(lines).rename(tmp_path / f"pope/coco/coco_pope_{category}.json")
        questions += [
            {"question_id": len(questions) + i, "image": "a.jpg", "text": label["text"] + SHORT_ANSWER}
            | {"category": category}
            for i, label in enumerate(labels)
        ]
    put("pope/llava_pope_test.jsonl", questions)
    put("pope/val2014/a.jpg", "")
    return tmp_path


@pytest.mark.parametrize("name", TASKS)
def test_of_a_benchmark_that_is_not_there_every_problem_says_where_to_get_the_thing(name, tmp_path):
    found = problems(name, tmp_path)
    assert all("get it: " in finding.message or "get the images: " in finding.message for finding in found)
    files = [*TASKS[name].splits.values()][:1] + [*TASKS[name].annotations]
    expected = {tmp_path / TASKS[name].folder / file.path for file in files if file.made_from is None}
    assert expected <= {finding.what for finding in found}
    assert bool(found) == (name != "shapes")


def test_a_benchmark_that_is_whole_is_ready(pope):
    assert problems("pope", pope) == []
    found = {Path(finding.what).name: finding.message for finding in diagnose("pope", pope)}
    assert found["val2014"] == "1 images" and found["coco_pope_random.json"] == "2910 rows"


def test_labels_of_the_current_release_are_told_by_their_number(pope):
    path = pope / "pope/coco/coco_pope_random.json"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    (fault,) = problems("pope", pope)
    assert fault.status == "wrong" and "2911 rows instead of 2910" in fault.message and "e3e39262" in fault.message


def test_labels_of_the_current_release_are_told_by_an_edited_question(pope):
    path = pope / "pope/coco/coco_pope_popular.json"
    path.write_text(path.read_text().replace("popular 17?", "surfboard?"))
    (fault,) = problems("pope", pope)
    assert "1 without an answer" in fault.message and "e3e39262" in fault.message


def test_files_of_another_size_are_no_problem_where_that_may_be_meant_as_long_as_they_match(pope, capsys):
    questions, labels = pope / "pope/llava_pope_test.jsonl", pope / "pope/coco/coco_pope_random.json"
    for path in (questions, labels):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert [fault.status for fault in problems("pope", pope)] == ["wrong", "wrong"]
    assert problems("pope", pope, any_size=True) == []
    words = ["pope", "--eval-dir", str(pope), "--any-size", "--quiet"]
    run_program(build_parser(), run_doctor, words)
    assert "2909 rows instead of 2910" in capsys.readouterr().out
    questions.write_text("".join(questions.read_text().splitlines(keepends=True)[:-1]))
    assert "1 without an answer" in problems("pope", pope, any_size=True)[0].message


def test_images_are_counted_one_by_one(pope):
    path = pope / "pope/llava_pope_test.jsonl"
    path.write_text(path.read_text().replace('"a.jpg"', '"b.jpg"', 1))
    (fault,) = problems("pope", pope)
    assert "1 of 2 images are not there, such as b.jpg" in fault.message


def test_questions_and_data_may_lie_in_different_folders(pope, tmp_path):
    (tmp_path / "questions/pope").mkdir(parents=True)
    (pope / "pope/llava_pope_test.jsonl").rename(tmp_path / "questions/pope/llava_pope_test.jsonl")
    assert problems("pope", tmp_path / "questions", data_dir=pope) == []
    assert len(problems("pope", pope)) == 1


def test_a_broken_file_is_named_with_its_line(pope):
    path = pope / "pope/llava_pope_test.jsonl"
    path.write_text(path.read_text() + "{\n")
    (fault,) = problems("pope", pope)
    assert "line 8911: not valid JSON" in fault.message and fault.message.count(str(path)) <= 1


@pytest.fixture
def mme(put, tmp_path):
    """MME: five categories with a folder of images and one of texts, nine with both side by side; 2374 questions."""
    sizes = {"artwork": 200, "celebrity": 170, "landmark": 200, "posters": 147, "scene": 200}
    sizes |= {"commonsense_reasoning": 70, "count": 30, "color": 30, "position": 30, "existence": 30}
    sizes |= dict.fromkeys(["OCR", "numerical_calculation", "text_translation", "code_reasoning"], 20)
    base, questions = "MME/MME_Benchmark_release_version", []
    for category, images in sizes.items():
        apart = category in ("artwork", "celebrity", "landmark", "posters", "scene")
        for i in range(images):
            image = f"{category}/{'images/' if apart else ''}{i}.jpg"
            put(f"{base}/{image}", "")
            asked = [f"Is {i} right?", f"Is {i} wrong?"]
            text = "".join(f"{question} Please answer yes or no.\tYes\n" for question in asked)
            put(f"{base}/{category}/{'questions_answers_YN/' if apart else ''}{i}.txt", text)
            questions += [{"question_id": image, "image": image, "text": question + SHORT_ANSWER} for question in asked]
    put("MME/llava_mme.jsonl", questions)
    return tmp_path


def test_mme_is_matched_file_by_file(mme):
    assert problems("mme", mme) == []
    (mme / "MME/MME_Benchmark_release_version/OCR/3.txt").unlink()
    (fault,) = problems("mme", mme)
    assert "2 answered but not annotated" in fault.message


def test_another_layout_of_mme_is_wrong(mme):
    folder = mme / "MME/MME_Benchmark_release_version"
    (folder / "OCR").rename(folder / "ocr_images")
    assert any("images are not there, such as OCR/0.jpg" in finding.message for finding in problems("mme", mme))


@pytest.fixture
def sqa(put, tmp_path):
    questions = [{"id": str(i), "conversations": []} for i in range(4241)]
    for question in questions[:2017]:
        question["image"] = f"{question['id']}/image.png"
        (tmp_path / "scienceqa/images/test" / question["id"]).mkdir(parents=True)
        (tmp_path / "scienceqa/images/test" / question["image"]).touch()
    put("scienceqa/llava_test_CQM-A.json", questions)
    put("scienceqa/pid_splits.json", {"test": [question["id"] for question in questions]})
    put("scienceqa/problems.json", {question["id"]: {"choices": [], "answer": 0} for question in questions})
    return tmp_path


def test_scienceqas_image_questions_are_made_from_all_questions(sqa):
    notes = [finding for finding in diagnose("sqa", sqa) if finding.status == "note"]
    assert problems("sqa", sqa) == []
    assert "a run makes it from llava_test_CQM-A.json" in notes[0].message
    (sqa / "scienceqa/llava_test_CQM-A.json").unlink()
    (fault,) = problems("sqa", sqa)
    assert fault.what == sqa / "scienceqa/llava_test_CQM-A.json"


def test_scienceqas_questions_must_be_in_its_test_split(sqa, put):
    put("scienceqa/pid_splits.json", {"test": [str(i + 1) for i in range(4241)]})
    (fault,) = problems("sqa", sqa)
    assert "1 questions are not in the test split, such as '0'" in fault.message


def test_gqas_questions_lie_in_either_of_two_places(put, tmp_path):
    ids = [str(i) for i in range(12578)]
    put("gqa/llava_gqa_testdev_balanced.jsonl", [{"question_id": i, "image": "n.jpg", "text": "?"} for i in ids])
    put("gqa/data/images/n.jpg", "")
    for place in ("data/questions", "data"):
        put(f"gqa/{place}/testdev_balanced_questions.json", {i: {"answer": "", "isBalanced": True} for i in ids})
        assert problems("gqa", tmp_path) == []
    put("gqa/data/testdev_balanced_questions.json", {f"n{i}": {"answer": "", "isBalanced": True} for i in ids})
    (fault,) = problems("gqa", tmp_path)
    assert "12578 without an answer" in fault.message


def test_a_table_without_answers_is_wrong_for_a_dev_split_and_right_for_a_test_split(put, tmp_path):
    header, row = "index\tquestion\tA\tB\timage", "1\tWhich?\ta\tb\tAAAA"
    put("mmbench/mmbench_dev_20230712.tsv", f"{header}\n{row}\n")
    put("mmbench/mmbench_test_20230712.tsv", f"{header}\n{row}\n")
    (fault,) = problems("mmbench", tmp_path)
    assert "no column answer" in fault.message
    assert problems("mmbench", tmp_path, split="mmbench_test_20230712") == []


def test_what_shapes_lacks_its_script_draws(put, tmp_path):
    question = {"question_id": 1, "image": "a.png", "text": "?"}
    put("shapes/shapes_test.jsonl", [question])
    assert [finding.what.name for finding in problems("shapes", tmp_path)] == ["images"]
    put("shapes/images/a.png", "")
    assert problems("shapes", tmp_path) == []
    put("shapes/shapes_test_labels.jsonl", [{"question_id": 2, "answer": "red", "category": "color"}])
    (fault,) = problems("shapes", tmp_path)
    assert "1 without an answer" in fault.message


def status(words, capsys):
    try:
        run_program(build_parser(), run_doctor, words)
    except SystemExit as end:
        return end.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_the_program_fails_for_a_named_benchmark_that_cannot_run(pope, capsys):
    place = ["--eval-dir", str(pope)]
    code, output = status(["pope", *place], capsys)
    assert code == 0 and output.startswith("pope: ready\n  ok ")
    code, output = status(["pope", "gqa", *place, "--quiet"], capsys)
    assert code == 1 and output.startswith("gqa: not ready\n  missing ") and "pope: " not in output
    code, output = status(place, capsys)
    assert code == 0 and all(f"{name}: " in output for name in TASKS)


def test_the_program_names_valid_benchmarks_and_splits(tmp_path, capsys):
    assert "valid are vqav2, gqa" in status(["popes", "--eval-dir", str(tmp_path)], capsys)[0]
    assert "valid are dev, test" in status(["qbench", "--split", "val"], capsys)[0]


def test_data_is_judged_without_importing_torch():
    code = "import sys; from llava.eval.doctor.data import diagnose; diagnose('pope', 'nowhere')"
    code += "; sys.exit(bool({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_findings_are_problems_or_not(pope):
    assert can_go_on(diagnose("pope", pope))
    assert not can_go_on(diagnose("gqa", pope))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image": ["a.jpg"]}, "the value of 'image' is of the wrong type"),
        ({"text": 3}, "the value of 'text' is of the wrong type: 3"),
        ({"text": "Is there none?"}, "1 without an answer"),
    ],
)
def test_labels_of_another_form_are_a_finding(pope, put, change, fault):
    path = pope / "pope/coco/coco_pope_random.json"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps(json.loads(lines[0]) | change) + "\n", *lines[1:]]))
    (found,) = problems("pope", pope)
    assert fault in found.message and "get it: " in found.message


@pytest.mark.parametrize(
    ("name", "form"), [("gqa", [{"answer": "a", "isBalanced": True}]), ("mmvet", [{"capability": []}])]
)
def test_a_list_in_the_place_of_an_object_is_a_finding(put, tmp_path, name, form):
    benchmark = TASKS[name]
    questions = [{"question_id": 1, "image": "a.jpg", "text": "?"}]
    put(f"{benchmark.folder}/{next(iter(benchmark.splits.values())).path}", questions)
    put(f"{benchmark.folder}/{benchmark.images.path}/a.jpg", "")
    put(f"{benchmark.folder}/{benchmark.annotations[0].path}", form)
    (found,) = problems(name, tmp_path, any_size=True)
    assert "not of the release's form" in found.message


def test_an_image_that_no_file_can_be_named_after_is_missing(pope):
    path = pope / "pope/llava_pope_test.jsonl"
    path.write_text(path.read_text().replace('"a.jpg"', '"a\\u0000/b.jpg"', 1))
    (fault,) = problems("pope", pope)
    assert "1 of 2 images are not there" in fault.message


@pytest.mark.parametrize("coding", ["utf-8-sig", "latin-1"])
def test_questions_from_windows_are_read_or_told(pope, coding):
    path = pope / "pope/llava_pope_test.jsonl"
    record = json.loads(path.read_text().splitlines()[0]) | {"category": "café"}
    lines = [json.dumps(record, ensure_ascii=False), *path.read_text().splitlines()[1:]]
    path.write_bytes("\r\n".join(lines).encode(coding))
    found = problems("pope", pope)
    assert bool(found) == (coding == "latin-1") and all("line 1: not UTF-8" in fault.message for fault in found)


def test_the_last_line_says_how_many_benchmarks_are_complete_and_how_much_there_is_to_download(pope, capsys):
    _, output = status(["--eval-dir", str(pope)], capsys)
    last = output.splitlines()[-1]
    assert last == "2 of 15 benchmarks complete; to download: 38.9 GB and what nobody says the size of"
    _, output = status(["pope", "--eval-dir", str(pope)], capsys)
    assert output.splitlines()[-1] == "1 of 1 benchmark complete"
    _, output = status(["pope", "--eval-dir", str(pope), "--quiet"], capsys)
    assert output == ""


def test_where_to_get_a_thing_is_told_once(tmp_path, capsys):
    _, output = status(["--eval-dir", str(tmp_path)], capsys)
    assert output.count("eval.zip, linked from") == output.count("test2015.zip (12 GB)") == 1
    assert output.count("mm-vet.zip") == output.count("coco_pope_adversarial.json") == 1
    lines = {line.split(":")[0].split("/")[-1]: line for line in output.splitlines()}
    assert lines["llava_gqa_testdev_balanced.jsonl"].endswith("get it: as for vqav2")
    assert lines["mm-vet.json"].endswith("get it: as above")
