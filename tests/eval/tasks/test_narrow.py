"""The first answers of a benchmark are scored as they are among all of them, by what belongs to them."""

import json
from dataclasses import replace

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks import TASKS
from llava.eval.tasks.base import Given
from llava.eval.tasks.pope import ROWS
from llava.records import InputError

SHORT = "\nAnswer the question using a single word or phrase."
REFERENCES = [[{"answer": word}] * 10 for word in ("red", "blue", "two", "no")]


def texts(*said):
    return [{"question_id": number, "text": text, "prompt": f"q{number}?{SHORT}"} for number, text in enumerate(said)]


def labelled(key, values, **more):
    return [{"question_id": number, key: value, **more} for number, value in enumerate(values)]


def pope():
    asked = [
        {"question_id": number, "image": f"{number // 2}.jpg", "text": f"Is it {number}?{SHORT}", "category": category}
        for number, category in enumerate(["popular", "popular", "random", "random"])
    ]
    labels = {
        category: [
            {"image": q["image"], "text": q["text"].removesuffix(SHORT), "label": ("no", "yes")[q["question_id"] % 2]}
            for q in asked
            if q["category"] == category
        ]
        for category in ("popular", "random")
    }
    answers = [
        {"question_id": q["question_id"], "prompt": q["text"], "text": said}
        for q, said in zip(asked, ("No", "No", "Yes", "Yes"), strict=True)
    ]
    return Given(answers, asked, [labels.get(category, []) for category in ROWS])


def textvqa():
    answers = [a | {"question_id": f"image{a['question_id'] // 2}"} for a in texts("red", "green", "two", "yes")]
    wanted = [
        {"image_id": f"image{number // 2}", "question": f"Q{number}?", "answers": [each["answer"] for each in said]}
        for number, said in enumerate(REFERENCES)
    ]
    return Given(answers, annotations=[wanted])


def vizwiz(questions=True):
    asked = [{"question_id": number, "image": f"{number}.jpg"} for number in range(4)]
    wanted = [
        {"image": f"{number}.jpg", "question": f"q{number}?", "answers": references}
        for number, references in enumerate(REFERENCES)
    ]
    return Given(texts("red", "green", "two", "yes"), asked if questions else None, [wanted])


def sqa():
    problems = {str(number): {"answer": 0, "choices": ["a", "b"]} for number in range(5)}
    answers = [a | {"prompt": f"<image>\n{a['prompt']}"} for a in texts("A", "B", "A", "B")]
    return Given(answers, annotations=(list(problems), problems))


def seed():
    questions = labelled("answer", "ABCD", question_type_id=1, data_type="image")
    questions = [question | {"question_id": f"0{question['question_id']}"} for question in questions]
    return Given(texts("A", "A", "C", "A"), annotations=[{"question_type": {"kind": 1}, "questions": questions}])


def qbench():
    wanted = [
        {"img_path": f"{number // 2}.jpg", "question": f"q{number}", "candidates": ["Good", "Bad"]}
        | {"correct_ans": "Bad"}
        for number in range(4)
    ]
    said = zip(wanted, ("A", "B", "B", "A"), strict=True)
    answers = [{"img_path": q["img_path"], "question": q["question"], "response": text} for q, text in said]
    return Given(answers, annotations=[wanted])


def mmbench():
    options = {"A": "x", "B": "y", "C": float("nan"), "D": float("nan")}
    rows = [{"index": str(number), "question": "q", "answer": "A", **options} for number in range(4)]
    return Given(texts("A", "B", "A", "B"), annotations=[rows])


GIVEN = {
    "shapes": Given(
        [answer | {"metadata": {}} for answer in texts("red", "two", "no", "yes")],
        annotations=[labelled("answer", ("red", "one", "no", "no"), category="color")],
    ),
    "gqa": Given(
        texts("Red.", "blue", "cat", "no"),
        annotations=[
            {str(n): {"answer": word, "isBalanced": True} for n, word in enumerate(("red", "black", "cat", "yes"))}
        ],
    ),
    "vqav2": Given(texts("red", "green", "two", "yes"), annotations=[labelled("answers", REFERENCES)]),
    "vizwiz": vizwiz(),
    "textvqa": textvqa(),
    "pope": pope(),
    "sqa": sqa(),
    "seed": seed(),
    "qbench": qbench(),
    "mmbench": mmbench(),
    "mmvet": Given(
        {f"v1_{n}": {"score": [grade]} for n, grade in enumerate((1.0, 0.0, 0.5, 0.25))},
        annotations=[{f"v1_{n}": {"capability": ["ocr"]} for n in range(4)}],
    ),
}


def first(answers, count):
    return dict(list(answers.items())[:count]) if isinstance(answers, dict) else answers[:count]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", GIVEN)
def test_the_first_answers_have_the_scores_that_they_have_among_all(name, count):
    task, given = TASKS[name], GIVEN[name]
    every = task.score(given).scores
    assert len(every) == 4 and 0 < sum(every.values()) < 4
    some = replace(given, answers=first(given.answers, count))
    found = task.score(task.narrow(some))
    assert list(found.scores.items()) == list(every.items())[:count] and found.count == count and not found.missing
    if count < 4 and name != "sqa":  # of whose split not all have an image
        with pytest.raises(InputError):
            task.score(some)


def test_without_the_questions_vizwiz_goes_by_place():
    given = vizwiz(questions=False)
    narrowed = TASKS["vizwiz"].narrow(replace(given, answers=given.answers[:2]))
    assert list(TASKS["vizwiz"].score(narrowed).scores.values()) == [1.0, 0.0]


def test_an_image_of_mme_stays_whole(put, tmp_path):
    for number in range(3):
        put(f"MME/count/{number}.txt", "One? Please answer yes or no.\tYes\nTwo? Please answer yes or no.\tNo\n")
    said = [
        {"question_id": f"count/{n // 2}.png", "prompt": f"{('One?', 'Two?')[n % 2]}{SHORT}", "text": "Yes"}
        for n in range(6)
    ]
    mme, images = TASKS["mme"], tmp_path / "MME"
    assert mme.score(mme.narrow(Given(said[:4], images=images))).value == 50
    with pytest.raises(InputError, match=r"image '1' of count has 1 questions, not two: a limit must not part them"):
        mme.score(mme.narrow(Given(said[:3], images=images)))


@pytest.fixture
def files(put):
    """Answers of a run with ``--limit 2``, and the labels of four questions."""
    run = {"model_path": "x/llava-v1.5-7b", "limit": 2}
    metadata = {"pruner": "none", "options": {}, "run": run}
    given = GIVEN["shapes"]
    return [
        *("--result-file", put("answers.jsonl", [a | {"metadata": metadata} for a in given.answers[:2]])),
        *("--annotation-file", put("labels.jsonl", given.annotations[0])),
    ]


def test_a_limited_run_is_scored_with_its_limit_and_says_so(files, tmp_path, capsys):
    main(["score", "shapes", *files, "--limit", "2", "--output", str(tmp_path / "r.json")])
    written = json.loads((tmp_path / "r.json").read_text())
    assert (written["count"], written["value"], written["setting"]["variant"]) == (2, 50.0, "limit2")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "answers are to the first 2 questions: score them with --limit 2"),
        (["--limit", "3"], "answers are to the first 2 questions: score them with --limit 2"),
        (["--limit", "0"], "argument --limit: '0' is not an integer of at least 1"),
    ],
)
def test_another_limit_is_refused(files, words, error, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score", "shapes", *files, *words])
    assert error in f"{ended.value} {capsys.readouterr().err}"


def test_answers_of_an_unfinished_run_are_not_scored(files, put):
    lines = open(files[1], encoding="utf-8").read().splitlines()
    put("answers.jsonl", [json.loads(lines[0])])
    with pytest.raises(SystemExit, match="--limit 2, but there are answers to 1 questions: an unfinished run"):
        main(["score", "shapes", *files, "--limit", "2"])


def test_a_part_of_the_questions_is_not_submitted(put, tmp_path):
    run = {"pruner": "none", "run": {"limit": 2}}
    answers = put("a.jsonl", [answer | {"metadata": run} for answer in texts("a", "b")])
    asked = put("q.jsonl", labelled("image", "abcd"))
    with pytest.raises(SystemExit, match="first 2 questions alone: nothing to submit"):
        words = ["--result-file", answers, "--question-file", asked, "--output", str(tmp_path / "up.json")]
        main(["submit", "vqav2", *words])
    assert not (tmp_path / "up.json").exists()
