"""The list of pruners says of each what its class says."""

import re
from pathlib import Path

import pytest

from llava.pruners import PRUNERS, option_defaults
from llava.pruners.__main__ import main

LIST = (Path(__file__).parents[2] / "docs/pruners.md").read_text(encoding="utf-8")
OF_NOBODY = {"uniform", "random"}


def test_lists_every_pruner_with_what_it_reads_and_where_it_comes_from(capsys):
    main([])
    blocks = dict(block.split("\n", 1) for block in capsys.readouterr().out.split("\n\n"))
    assert list(blocks) == list(PRUNERS)
    for name, cls in PRUNERS.items():
        said = {*cls.needs, *option_defaults(cls), cls.paper, cls.source, cls.licence}
        assert not [word for word in said if word not in blocks[name]]


def test_says_what_one_pruner_is(capsys):
    main(["divprune"])
    assert capsys.readouterr().out.splitlines() == [
        "divprune",
        "  keeps   the tokens that lie farthest apart (greedy max-min diversity)",
        "  reads   embeds",
        "  at once an image",
        "  options centered = False, whether tokens are centred before they are compared",
        "  paper   https://arxiv.org/abs/2503.02175",
        "  code    https://github.com/vbdi/divprune (CC BY-NC 4.0)",
    ]


def test_an_unknown_name_ends_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["divprun"])
    assert "error: unknown pruner divprun; the known ones are cdpruner, divprune, " in capsys.readouterr().err


@pytest.mark.parametrize("name", PRUNERS)
def test_the_list_in_the_documents_has_a_row_with_the_same_options_links_and_licence(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*$", LIST, re.MULTILINE)[:1]
    cls = PRUNERS[name]
    assert (name in OF_NOBODY) == (not cls.paper and not cls.source)
    assert all(link in row for link in (cls.paper, cls.source) if link)
    assert re.findall(r"`(\w+)`", row.split(" | ")[3]) == [*option_defaults(cls)]
    assert (cls.licence if cls.licence != "none" else "no licence") in row
