"""Every command that the documents show is run, dry: a command or a flag that no longer exists fails here."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def documented_commands() -> list[tuple[str, str]]:
    """The commands in the bash blocks of the documents, each with its document's name."""
    documents = [REPOSITORY / "EVAL.md", REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    commands = []
    for document in documents:
        text = document.read_text() if document.is_file() else ""
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            commands += [(document.name, line.strip()) for line in lines if line.strip() and line[0] != "#"]
    return commands


def test_the_documents_show_commands():
    assert len(documented_commands()) > 4


@pytest.mark.parametrize(("document", "command"), documented_commands())
def test_every_command_shown_runs_dry(workplace, document, command):
    workplace.folder.joinpath(".venv/bin").mkdir(parents=True)
    workplace.folder.joinpath(".venv/bin/activate").touch()
    result = workplace.run(f"set -e; cd() {{ :; }}; {command}")
    assert result.returncode == 0, f"{document}: {command}\n{result.stdout}{result.stderr}"
    for call in workplace.calls():
        if call.module.startswith("llava.") or call.script:
            call.parser().parse_args(call.options)
