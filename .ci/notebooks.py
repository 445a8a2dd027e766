"""Run the notebooks in examples/ anew and write what they print and draw into them: ``python .ci/notebooks.py``.

A notebook is changed in Jupyter or any editor. This makes what is committed the same whoever ran it last: without
versions, warnings, or when a cell ran. A cell's tags say what differs from one run to the next: all that is printed
(``times``), or its numbers, by a few (``roughly``).
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path: Path) -> nbformat.NotebookNode:
    """A notebook with what its cells print and draw now; an error in one of them is raised."""
    notebook = nbformat.read(path, as_version=4)
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    place = {"metadata": {"path": str(path.parent)}}
    patience = {"timeout": 600, "startup_timeout": 300}  # of a machine that is busy
    client = NotebookClient(notebook, kernel_name="python3", resources=place, coalesce_streams=True, **patience)
    # The embedded model is small: more threads than one are no faster, and round otherwise.
    client.execute(env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": places})
    return plain(notebook)


def plain(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what tells runs apart that show the same."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if "tags" in cell.metadata else {})
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell prints."""
    return "".join(each.text for each in cell.get("outputs", ()) if each.output_type == "stream")


if __name__ == "__main__":
    for path in EXAMPLES:
        nbformat.write(run(path), path)
        print(path.relative_to(ROOT), f"{path.stat().st_size / 1024:.0f} KB", file=sys.stderr)
