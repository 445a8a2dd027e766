"""Questions whose answers change with the pruner: image, tokens kept and dropped, and the answer at every setting."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from llava.eval.ask.dataset import ImageError, QuestionDataset, Sample, read_image
from llava.eval.pictures.samples import (
    Answers,
    Questions,
    answer_of,
    choose_questions,
    differ,
    name_of,
    read_answers,
    read_questions,
    read_scores,
    read_truth,
    reference_of,
)
from llava.eval.pictures.selections import LOADING, Selection, Selector
from llava.eval.pictures.shown import NO_ANSWER, Said, Section, Shown, View
from llava.eval.results.collect import Group, Measurement
from llava.eval.results.table import Table, title
from llava.mm_utils import to_rgb
from llava.records import InputError

Drawn = Mapping[tuple[str, str], tuple[Sequence[View], str]]
"""What to show of the image beside an answer, and what to say of it, by pruner and setting."""

PICTURE_PIXELS = 336
NOT_RECORDED = "Answers do not record which tokens were kept: --checkpoint FOLDER finds it out again with the model."
FOUND_AGAIN = "White patches were dropped (point at an image to see them), found out again with the model on {}."


class Gallery:
    """Chooses the questions to show, with what was answered and kept.

    Args:
        measurements: the results whose answers are shown.
        eval_dir, data_dir: folders of all benchmarks' questions, and of their images.
        count: questions shown of each benchmark.
        checkpoint: folder of the model to prune with again; None shows no tokens.
        device: where that runs.

    Attributes:
        pictures: content of JPEG files by name, each once.

    Raises:
        InputError: no result is of that checkpoint.
    """

    def __init__(
        self,
        measurements: Sequence[Measurement],
        eval_dir: Path,
        data_dir: Path,
        count: int,
        checkpoint: str | None = None,
        device: str | None = None,
    ):
        names = sorted({each.group.checkpoint for each in measurements})
        if checkpoint is not None and Path(checkpoint).resolve().name not in names:
            raise InputError(f"--checkpoint {checkpoint}: there are no results of it, but of {', '.join(names)}")
        self.measurements = measurements
        self.eval_dir, self.data_dir = eval_dir, data_dir
        self.count = count
        self.checkpoint, self.device = checkpoint, device
        self.pictures: dict[str, bytes] = {}
        self._selectors: dict[tuple, Selector] = {}

    def section(self, table: Table, column: str) -> Section:
        """The questions of a benchmark, or what keeps them from being shown."""
        results = [each for each in self.measurements if (each.group, each.column) == (table.group, column)]
        head = f"{title(column)}: questions whose answers change most"
        try:
            questions = read_questions(column, self.eval_dir, self.data_dir)
            answers = _in_order(read_answers(results, questions.samples), table)
        except InputError as error:
            return Section(head, [str(error)])
        if not answers:
            return Section(head, ["The answers are not beside the results."])
        selector, draw = self._selector(table.group, answers), None
        if selector is not None:
            run = answers[reference_of(answers)][0]["metadata"]["run"]
            draw = partial(self._views, selector, selector.dataset(questions, run["conv_mode"]))
        asked = questions.samples[: len(answers[reference_of(answers)])]
        chosen, changing = choose_questions(answers, asked, self.count)
        told = f"{changing} of {len(asked)} questions are answered otherwise by some pruner; shown are {len(chosen)}."
        notes = [told, FOUND_AGAIN.format(selector.device) if selector else NOT_RECORDED]
        scores, truth = read_scores(results), read_truth(column, self.eval_dir, self.data_dir)
        shown = []
        for index in tqdm(chosen, unit="question", desc=column, leave=None):
            lines = {place: of_place[index] for place, of_place in answers.items()}
            name = name_of(column, lines[reference_of(answers)])
            known = {place: of_place[name] for place, of_place in scores.items() if name in of_place}
            shown.append(self._question(index, questions, lines, known, truth.get(name, ""), draw))
        return Section(head, notes, shown)

    def _selector(self, group: Group, answers: Answers) -> Selector | None:
        """The model, if it is the one that answered and the answers say how."""
        if self.checkpoint is None or Path(self.checkpoint).resolve().name != group.checkpoint:
            return None
        if not all(map(_says_how, chain.from_iterable(answers.values()))):
            return None
        runs = [lines[0]["metadata"]["run"] for lines in answers.values()]
        key = (group, *(runs[0].get(name) for name in LOADING))
        if key not in self._selectors:
            self._selectors[key] = Selector(self.checkpoint, runs[0], self.device)
        return self._selectors[key]

    def _question(
        self,
        index: int,
        questions: Questions,
        lines: Mapping[tuple[str, str], dict[str, Any]],
        scores: Mapping[tuple[str, str], float],
        truth: str,
        draw: Callable[..., Drawn] | None,
    ) -> Shown:
        """One question.

        Args:
            lines, scores: of every pruner and setting.
            draw: makes the pictures of the answers; without it the image itself is shown.
        """
        sample, picture, note = questions.samples[index], None, ""
        reference = answer_of(lines[reference_of(lines)], sample)
        drawn: Drawn = {}
        try:
            if draw is None:
                image = to_rgb(read_image(sample.image, sample.question_id))
                picture = View(self._add(image), image.width, image.height)
            else:
                drawn = draw(index, lines)
        except (ImageError, InputError) as error:
            note = str(error)
        said = []
        for place, line in lines.items():
            text, tokens = answer_of(line, sample), (line.get("metadata") or {}).get("visual_tokens")
            changed, (views, note_of_it) = differ(text, reference), drawn.get(place, ((), ""))
            score = scores.get(place)
            said.append(Said(*place, tokens, text.strip() or NO_ANSWER, score, changed, views, note_of_it))
        return Shown(sample.prompt, truth, said, picture, note)

    def _views(
        self, selector: Selector, dataset: QuestionDataset, index: int, lines: Mapping[tuple[str, str], dict[str, Any]]
    ) -> Drawn:
        """For every answer what the encoder saw of the image, dropped patches covered."""
        names = [self._add(view) for view in selector.views(dataset, index)]
        drawn = {}
        for place, line in lines.items():
            selection = selector.select(dataset, index, line["metadata"])
            views = [
                View(name, mask.shape[1], mask.shape[0], dropped_path(mask))
                for name, mask in zip(names, selection.masks, strict=True)
            ]
            drawn[place] = views, _mismatch(selection, line, dataset.samples[index])
        return drawn

    def _add(self, image: Image.Image) -> str:
        """Put a picture into ``pictures``, and return the name it has there."""
        image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=88)
        name = f"p{len(self.pictures)}"
        self.pictures[name] = file.getvalue()
        return name


def _says_how(line: Mapping[str, Any]) -> bool:
    """Whether an answer's line says with which pruner and template it was given."""
    metadata = line.get("metadata") or {}
    return {"pruner", "options", "run"} <= metadata.keys() and "conv_mode" in metadata["run"]


def _in_order(answers: Answers, table: Table) -> Answers:
    """The answers pruner by pruner, budgets as the table has them."""
    places = [(row.pruner, row.label) for row in table.rows if (row.pruner, row.label) in answers]
    pruners = list(dict.fromkeys(pruner for pruner, _ in places))
    return {place: answers[place] for place in sorted(places, key=lambda place: pruners.index(place[0]))}


def dropped_path(mask: np.ndarray) -> str:
    """SVG path over the patches that are not kept, one rectangle for every run of them in a row.

    Args:
        mask: which patches are kept, (rows, columns) bool.
    """
    rectangles = []
    for number, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(~row, prepend=False, append=False))  # where runs start and end, in turn
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            rectangles.append(f"M{start} {number}h{end - start}v1h-{end - start}z")
    return "".join(rectangles)


def data_uri(content: bytes, kind: str) -> str:
    """A picture as text that a page can hold; ``kind`` is the second half of its media type."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _mismatch(selection: Selection, line: Mapping[str, Any], sample: Sample) -> str:
    """What to say where asking again comes to another number of tokens or another answer than the one on record.

    The model may have changed, or runs in another precision; an answer that was sampled is not compared.
    """
    metadata = line["metadata"]
    sampled = metadata["run"].get("temperature", 0) > 0
    same_text = sampled or not differ(selection.text, answer_of(line, sample))
    if same_text and selection.visual_tokens == metadata.get("visual_tokens", selection.visual_tokens):
        return ""
    return f"asked again: {selection.visual_tokens} tokens, {selection.text!r}"
