"""Documents as pages of the site: links lead on, every page is found, and nothing is loaded from elsewhere."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest

from .conftest import DOCUMENTS, FENCED, REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [file.relative_to(DOCS).with_suffix("").as_posix() for file in DOCUMENTS if file.is_relative_to(DOCS)]
ADDRESS = "https://example.org/owner/name"
TERMS = {
    " ".join(term.split())
    for term in """
    tile, cue, budget, pruner, visual token, position policy, anyres layout, floor, plain form, break-even, prefill,
    host, seam, relevance, newline token, release, keep ratio, patch, encoder, projector, features, embeddings,
    grid, frame, position, m-rope, padding, template, training-free, budget scope, effective rank, [CLS], attention
    received, score, search, determinantal point process, diversity, coverage, merging, centred, prune layer,
    decoder layer, record, fail closed, decoding, time to first token, throughput, KV memory, FLOPs, noisy, CUDA
    graph, kernel, launch, protocol, published number, lmms-eval, judge, golden file, paired test, embedded model,
    native format, part, family, door, doctor, extra, budget that follows the picture,
    raster order, LoRA, DeepStack, CPU time, Gram matrix, SDPA
    """.split(",")
}
"""Words with a meaning of their own in the README and the documents."""


def slugs(text: str) -> set[str]:
    """The anchors of a document's headings, as code hosts and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,4} (.*)$", FENCED.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(next(each for each in (slug, *(f"{slug}-{i}" for i in range(1, 99))) if each not in found))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.relative_to(REPOSITORY).as_posix())
def test_every_anchor_is_a_heading(document):
    dead = []
    for target, anchor in re.findall(r"\]\(([^()#\s:]*)#([^()\s]+)\)", document.read_text(encoding="utf-8")):
        file = document.parent / target if target else document
        if file.suffix == ".md" and anchor not in slugs(file.read_text(encoding="utf-8")):
            dead.append(f"{target}#{anchor}")
    assert not dead


@pytest.mark.parametrize("address", [None, ADDRESS])
@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(pages, page, address):
    text = pages.text_of(page, (DOCS / f"{page}.md").read_text(encoding="utf-8"), address)
    for match in pages.LINK.finditer(FENCED.sub("", text)):
        target = match["target"].partition("#")[0].removeprefix("path:")
        if target.startswith(ADDRESS):
            assert os.path.exists(REPOSITORY / target.removeprefix(f"{ADDRESS}/blob/HEAD/"))
        elif target and "://" not in target:
            path = os.path.normpath((DOCS / page).parent / target)
            assert os.path.isfile(path)
            assert path.startswith(f"{DOCS}{os.sep}") or "path:" in match["target"] or match["image"]


def test_links_lead_to_pages_copies_and_the_repository(pages):
    written = (
        "[a](../EVAL.md#gqa) [b](../../llava/command.py) [c](../../tests/golden) [d](https://x.org) ![e](../scene.png)"
    )
    written = written.replace("../EVAL", "../../EVAL") + "\n```\n[f](nowhere.md)\n```\n[g](../../README.md#models)"
    text = pages.text_of("models/qwen", written, None)
    assert text == (
        "[a](../evaluation.md#gqa) [b](path:../../llava/command.py) c [d](https://x.org) ![e](../scene.png)"
        "\n```\n[f](nowhere.md)\n```\n[g](../index.md)"
    )
    assert f"[b]({ADDRESS}/blob/HEAD/llava/command.py) [c]({ADDRESS}/blob/HEAD/tests/golden)" in pages.text_of(
        "models/qwen", written, ADDRESS
    )
    with pytest.raises(ValueError, match="docs/models/qwen.md: nowhere.md leads nowhere"):
        pages.text_of("models/qwen", "[f](nowhere.md)", None)


def test_documents_outside_of_docs_are_pages(pages):
    for page, shown in pages.SHOWN.items():
        title = (REPOSITORY / shown).read_text(encoding="utf-8").splitlines()[0]
        assert pages.text_of(page, (DOCS / f"{page}.md").read_text(encoding="utf-8"), None).startswith(title)


def test_every_page_is_listed():
    listed = []
    for index in ("index", "reference/index"):
        folder = f"{index.rpartition('/')[0]}/".lstrip("/")
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / f"{index}.md").read_text(), re.M | re.S):
            listed += [folder + line for line in tree.splitlines() if line and line[0] != ":"]
    for page in set(PAGES) - {"index"}:
        assert any(fnmatchcase(page, entry) for entry in listed), f"{page} is in no list of pages"


def test_every_special_word_has_a_line():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### (.+)\n([^#]+)", text, re.MULTILINE))
    assert set(entries) >= TERMS
    assert all(20 < len(line.strip()) < 500 for line in entries.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="https://cdn.org/x.js"></script>', ["https://cdn.org/x.js"]),
        ('<link rel="stylesheet" href="//cdn.org/x.css">', ["//cdn.org/x.css"]),
        ("<style>@import 'https://fonts.org/f.css'; a { color: red }</style>", ["https://fonts.org/f.css"]),
        ('<img src="a.png" srcset="https://i.org/2.png 2x, b.png">', ["https://i.org/2.png"]),
        ('<p style="background: url(https://i.org/p.png)">', ["https://i.org/p.png"]),
        (
            '<a href="https://x.org">x</a><link rel="next" href="https://x.org/b"><img src="data:image/png;base64,AA">',
            [],
        ),
        ('<script src="_static/x.js"></script><code>url(https://x.org)</code>', []),
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(pages, tmp_path, text, found):
    file = tmp_path / "page.html"
    file.write_text(text)
    assert pages.loads_from_elsewhere(file) == found


def test_fonts_of_a_style_sheet_are_found(pages, tmp_path):
    file = tmp_path / "style.css"
    file.write_text('@font-face { src: url("https://fonts.org/a.woff2"), url(b.woff2) }')
    assert pages.loads_from_elsewhere(file) == ["https://fonts.org/a.woff2"]


def test_docstrings_can_be_read_as_the_reference_reads_them():
    broken = re.compile(r"(?:^|[ (])``[^` ]+``[A-Za-z]", re.MULTILINE)
    files = (REPOSITORY / "llava").rglob("*.py")
    assert not [str(file) for file in files if broken.search(file.read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("furo", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "read"), "-b", "html"]
    done = subprocess.run([*words, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {file.relative_to(tmp_path / "site").with_suffix("").as_posix() for file in tmp_path.rglob("*.html")}
    assert built >= {*PAGES, "search"}
