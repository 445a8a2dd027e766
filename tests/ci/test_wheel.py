"""What is put into the wheel, and what a registry is told of the package."""

import re
import zipfile

import pytest

REPOSITORY = "https://example.org/someone/llava"


@pytest.mark.parametrize(
    "written, alone, at_home",
    [
        ("see [the docs](docs/a.md#b)", "see the docs", f"see [the docs]({REPOSITORY}/blob/HEAD/docs/a.md#b)"),
        ("![a scene](docs/scene.png)", "", f"![a scene]({REPOSITORY}/raw/HEAD/docs/scene.png)"),
        ('<img src="docs/a.svg" width="9">', "", f'<img src="{REPOSITORY}/raw/HEAD/docs/a.svg" width="9">'),
        (
            "[`a`](llava/a) and [b](b)",
            "`a` and b",
            f"[`a`]({REPOSITORY}/blob/HEAD/llava/a) and [b]({REPOSITORY}/blob/HEAD/b)",
        ),
    ],
)
def test_a_link_into_the_repository_leads_there_or_nowhere(wheel, written, alone, at_home):
    assert wheel.described(written, None) == alone
    assert wheel.described(written, REPOSITORY) == at_home


@pytest.mark.parametrize(
    "text", ["[paper](https://arxiv.org/abs/1)", "![x](https://a.org/x.png)", "[up](#top)", "a [b] (c)"]
)
def test_other_links_stay(wheel, text):
    assert wheel.described(text, None) == wheel.described(text, REPOSITORY) == text


def test_nothing_in_the_readme_leads_into_a_repository_that_has_no_address(wheel):
    text = wheel.described((wheel.ROOT / "README.md").read_text(encoding="utf-8"), None)
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"""\b(?:src|href|srcset)=["']([^"']+)""", text)]
    assert [target for target in targets if not wheel.ELSEWHERE.match(target)] == []


def test_files_that_a_wheel_lacks_are_named(wheel, tmp_path):
    files = [path for path in (wheel.ROOT / "llava").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = [path.relative_to(wheel.ROOT).as_posix() for path in files]
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        for name in names:
            if name != "llava/py.typed":
                archive.writestr(name, "")
    assert wheel.left_out(tmp_path / "some.whl") == ["llava/py.typed"]
