"""What holds for every benchmark of the table."""

import json

import pytest

from llava.eval.tasks import TASKS
from llava.eval.tasks.sqa import SQA
from llava.records import InputError


@pytest.mark.parametrize("name", TASKS)
def test_a_file_that_a_run_makes_is_made_by_the_task_from_one_of_its_files(name):
    files = [*TASKS[name].splits.values(), *TASKS[name].annotations]
    assert all(file.made_from in (None, "", *(other.path for other in files)) for file in files)
    assert any(file.made_from is not None for file in files) == (TASKS[name].make is not None)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_not_scored_here_goes_somewhere(name):
    task = TASKS[name]
    elsewhere = bool(task.judged) or not all(map(task.scored, task.splits))
    assert bool(task.server) == elsewhere and bool(task.judged) == (task.verdicts is not None)
    assert bool(task.upload) <= (task.submit is not None)


def test_science_questions_without_an_image_leave_none_to_make_a_file_of(tmp_path):
    (tmp_path / "llava_test_CQM-A.json").write_text(json.dumps([{"id": "1"}]))
    with pytest.raises(InputError, match=r"CQM-A\.json: none of its 1 questions has an image"):
        SQA.make(tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["llava_test_CQM-A.json"]
