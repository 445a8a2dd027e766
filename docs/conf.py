"""Makes a site of the documents: ``make docs``.

Sphinx, since it is maintained, makes the reference of the package's own docstrings and searches without a server. The
pages are Markdown (MyST), which code hosts show, too.
"""

import sys
from importlib.metadata import metadata
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_site"), str(Path(__file__).parents[1])]

from pages import loads_from_elsewhere, text_of  # noqa: E402

import llava  # noqa: E402

project = "LLaVA with visual-token pruners"
author = "its contributors"
version = release = llava.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_site", "results"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = project
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = []

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"show-inheritance": False}
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def repository_address() -> str | None:
    """Where the repository is, as the package's metadata says; None where they do not."""
    links = [link.split(", ", 1) for link in metadata("llava").get_all("Project-URL") or []]
    return next((address.rstrip("/") for name, address in links if name.lower() in ("repository", "source")), None)


def put_text(app, page: str, content: list[str]) -> None:
    """Put the text of a page in the place of what its file holds."""
    content[0] = text_of(page, content[0], repository_address())


def refuse_other_hosts(app, error: Exception | None) -> None:
    """End the build with an error if a page would make a browser ask another host for anything."""
    if error is not None or app.builder.format != "html":
        return
    files = [file for kind in ("*.html", "*.css") for file in Path(app.outdir).rglob(kind)]
    found = [f"{file}: {address}" for file in sorted(files) for address in loads_from_elsewhere(file)]
    if found:
        raise ValueError("\n".join(["pages load from other hosts:", *found]))


def setup(app) -> None:
    app.connect("source-read", put_text)
    app.connect("build-finished", refuse_other_hosts)
