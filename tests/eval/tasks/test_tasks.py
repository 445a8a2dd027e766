"""The table of facts against the scripts that use it."""

import re
from pathlib import Path

import pytest

from llava.eval.tasks import TASKS

SCRIPTS = Path(__file__).parents[3] / "scripts" / "eval"
BODIES = {script.stem: script.read_text() for script in SCRIPTS.glob("*.sh") if script.name != "driver.sh"}


def test_every_script_has_its_entry_and_every_entry_its_script():
    assert set(BODIES) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_script_and_table_agree_on_folder_splits_and_places(name):
    benchmark, body = TASKS[name], BODIES[name]
    call = re.search(r'driver\.sh" (\S+) (?:"([^"]+)"|(\S+))', body)
    assert call[1] == benchmark.folder
    assert (call[2] or call[3]).split() == list(benchmark.splits)
    if benchmark.images:
        folder = re.search(r'--image-folder "\$DATA/?([^"]*)"', body)[1]
        assert folder == benchmark.images.path.removeprefix(".")
    for split, file in benchmark.splits.items():
        root = "$DATA" if file.in_data else "$EVAL"
        path = f"{root}/{file.path}"
        assert path in body or path.replace(split, "$SPLIT") in body


@pytest.mark.parametrize("name", TASKS)
def test_a_file_that_a_script_makes_from_another_is_made_from_one_of_the_same_table(name):
    files = [*TASKS[name].splits.values(), *TASKS[name].annotations]
    assert all(file.made_from in (None, "", *(other.path for other in files)) for file in files)
