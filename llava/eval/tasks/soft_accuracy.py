"""Soft accuracy of TextVQA, VQAv2 and VizWiz: answers in normal form, against what several annotators said.

TextVQA: https://arxiv.org/abs/1904.08920. VQA: https://arxiv.org/abs/1505.00468.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from llava.eval.tasks.scores import Result, breakdowns, percent_by
from llava.records import InputError, check_record

NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())}
NUMBERS["none"] = "0"
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
CONTRACTED = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've
must've mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's
there'd there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()


def _contractions() -> dict[str, str]:
    """Every contracted form under each spelling that lacks one of its apostrophes."""
    spellings = {"somebody'd": "somebodyd"}
    for form in CONTRACTED:
        spellings |= {form[: mark.start()] + form[mark.end() :]: form for mark in re.finditer("'", form)}
    return spellings


CONTRACTIONS = _contractions()


def strip_punctuation(text: str) -> str:
    """Delete or blank out punctuation, by VQA's rule; apostrophes, colons, ``$`` and ``%`` stay.

    A mark that touches a space anywhere in the text, or any mark where digits are grouped by commas, is deleted;
    another mark becomes a space. A period goes unless a digit follows it.
    """
    grouped_digits = re.search(r"\d,+\d", text)
    cleaned = text
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if touches_space or grouped_digits else " ")
    return re.sub(r"\.(?!\d)", "", cleaned)


def unify_words(text: str) -> str:
    """Lower-case; number words become digits, articles go, contractions get their apostrophe back."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


class EvalAIAnswerProcessor:
    """The normal form in which answers are compared, as EvalAI's VQA challenges define it."""

    def __call__(self, text: str) -> str:
        """Normalise one answer."""
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
        text = text.replace("\n", " ").replace("\t", " ").strip()
        return unify_words(strip_punctuation(text))


def soft_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Mean over annotators of min(1, agreeing others / 3), in [0, 1]; texts are compared as they are.

    With ten references of which n agree: 0, 0.3, 0.6, 0.9 and 1 for n of 0, 1, 2, 3 and more.

    Raises:
        ValueError: no references.
    """
    agreeing = sum(reference == prediction for reference in references)
    return fmean(min(1.0, (agreeing - (reference == prediction)) / 3) for reference in references)


class TextVQAAccuracyEvaluator:
    """Soft accuracy of normalised answers against ten references each."""

    def __init__(self):
        self.answer_processor = EvalAIAnswerProcessor()

    def score(self, prediction: str, references: Sequence[str]) -> float:
        """Soft accuracy of one answer, in [0, 1]."""
        return soft_accuracy(self.answer_processor(prediction), [self.answer_processor(r) for r in references])

    def eval_pred_list(self, pred_list: Iterable[dict[str, Any]]) -> float:
        """Mean accuracy over objects with ``pred_answer`` and ``gt_answers``."""
        return fmean(self.score(entry["pred_answer"], entry["gt_answers"]) for entry in pred_list)


NORMALIZE = EvalAIAnswerProcessor()
OPTIONAL_KEYS = {"answer_type": str}


def accuracy(text: str, references: Sequence[str]) -> float:
    """Soft accuracy of one answer, in [0, 1].

    The answer is normalised first, as the converters do before an upload. Of what it gets then the challenge normalises
    both sides, unless all references are the same.
    """
    prediction, *others = (_one_line(answer) for answer in (NORMALIZE(text), *references))
    if len(set(others)) > 1:
        normal = {answer: unify_words(strip_punctuation(answer)) for answer in {prediction, *others}}
        prediction, others = normal[prediction], [normal[answer] for answer in others]
    return soft_accuracy(prediction, others)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def score_softly(benchmark: str, answers: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> Result:
    """Mean soft accuracy, overall and by ``answer_type`` where annotations have one.

    It is what converting the answers and uploading them to the challenge would give.

    Args:
        annotations: one per answer, in the order of the answers.
    """
    from tqdm import tqdm  # names of benchmarks are looked up without it

    scores = [
        accuracy(answer["text"], [reference["answer"] for reference in annotation["answers"]])
        for answer, annotation in zip(tqdm(answers, unit="answer", leave=False, disable=None), annotations, strict=True)
    ]
    types = [annotation.get("answer_type") for annotation in annotations]
    details = {} if None in types else {"by_answer_type": percent_by(types, scores)}
    unread = sum(not answer["text"].strip() for answer in answers)
    names = [answer["question_id"] for answer in answers]
    return Result.of_scores(benchmark, "soft accuracy", scores, answers, unread, details, names)


def most_given(answers: Sequence[str]) -> str:
    """The answer that most people gave, and by how many of them."""
    ((answer, count),) = Counter(answers).most_common(1)
    return f"{answer} ({count} of {len(answers)})"


def report(result: Result) -> str:
    """Overall accuracy, then one line for every type of answer."""
    lines = breakdowns("Accuracy", result.details)
    return "\n".join([f"Overall accuracy: {result.value:.2f}% ({result.count} questions)", *lines])


def check_references(annotations: Sequence[dict[str, Any]], file: str) -> None:
    """Raise InputError for annotations without reference answers, or with such as say nothing."""
    for number, annotation in enumerate(annotations, 1):
        for reference in annotation["answers"]:
            check_record(reference, f"{file}, question {number}", {"answer": str})
        if not annotation["answers"]:
            raise InputError(f"{file}, question {number}: no reference answers, as in a test split")
