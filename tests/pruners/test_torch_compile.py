"""A selection within ``torch.compile``: one graph, the search one operator of it, the same choice."""

import pytest
import torch

from llava.pruners import PRUNERS, VisualCues
from llava.pruners.search import duplicates
from llava.pruners.search.products import gram, unit_vectors

from .conftest import as_on_a_device

SEARCHES = {"cdpruner": "pivots", "divprune": "farthest_points", "vispruner": "least_duplicated", "mfpruner": None}
SEARCHES |= dict.fromkeys(("scope", "mmtok", "eadp"), "covering")

each_pruner = pytest.mark.parametrize("name", SEARCHES)


class Graphs(list):
    """A backend that keeps what it is given and runs it as it is."""

    def __call__(self, graph, inputs):
        self.append(graph)
        return graph.forward

    @property
    def searches(self):
        targets = [str(node.target) for graph in self for node in graph.graph.nodes]
        return [target.split(".")[1] for target in targets if target.startswith("llava.")]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def drawn():
    """Tensors of the cues that most read, and the images of the tiles."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).half()

    return draw(3, 90, 24), draw(3, 90, 40), draw(3, 90), draw(3, 90), torch.tensor([4, 0, 4])


def choose(pruner):
    """From tensors to what the pruner keeps, cues and all."""
    return lambda *tensors: pruner(VisualCues(*tensors))


@each_pruner
@pytest.mark.parametrize("images", [True, False])
def test_cues_and_selection_are_one_graph_without_a_value_read_back(name, images, drawn):
    tensors = [tensor.to("meta") for tensor in drawn[: None if images else -1]]
    compiled = torch.compile(choose(PRUNERS[name](16)), fullgraph=True, backend="eager")
    keep = compiled(*tensors)
    assert keep.device.type == "meta" and keep.shape == (3, 16) and keep.dtype == torch.int64


@each_pruner
def test_the_call_on_cues_that_are_there_is_one_graph(name, drawn):
    cues = VisualCues(*(tensor.to("meta") for tensor in drawn))
    keep = torch.compile(PRUNERS[name](16).__call__, fullgraph=True, backend="eager")(cues)
    assert keep.device.type == "meta" and keep.shape == (3, 16)


@each_pruner
def test_it_chooses_the_same_and_searches_by_one_operator(name, drawn):
    graphs = Graphs()
    compiled = torch.compile(choose(PRUNERS[name](16)), fullgraph=True, backend=graphs)
    keep = compiled(*drawn)
    with as_on_a_device():
        assert torch.equal(keep, choose(PRUNERS[name](16))(*drawn))
    assert graphs.searches == [search for search in [SEARCHES[name]] if search]


@each_pruner
def test_another_number_of_tiles_is_chosen_from_as_well(name, drawn):
    compiled = torch.compile(choose(PRUNERS[name](16)), fullgraph=True, backend="eager")
    for tiles in (1, 2, 3):
        some = [tensor[:tiles] for tensor in drawn]
        with as_on_a_device():
            expected = choose(PRUNERS[name](16))(*some)
        assert torch.equal(compiled(*some), expected)


@pytest.mark.parametrize("name", ["mmtok", "eadp"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_question_and_a_border_are_read_in_the_same_graph(name, device, random_cues):
    drawn = random_cues(tiles=2, tokens=36)
    read = sorted(PRUNERS[name].needs)
    tensors = [getattr(drawn, cue).to(device) for cue in read]

    def choose(*tensors):
        given = dict.fromkeys(("features", "embeds")) | dict(zip(read, tensors, strict=True))
        return PRUNERS[name](16)(VisualCues(**given))

    graphs = Graphs()
    keep = torch.compile(choose, fullgraph=True, backend=graphs)(*tensors)
    assert graphs.searches == ["covering"] and keep.shape == (2, 16)
    if device == "cpu":
        with as_on_a_device():
            assert torch.equal(keep, choose(*tensors))


def test_every_operator_returns_what_it_says():
    cosine = gram(unit_vectors(torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))))
    first = torch.tensor([[3], [5]])
    for search, *given in (("pivots", cosine), ("farthest_points", 1 - cosine, first), ("least_duplicated", cosine)):
        torch.library.opcheck(getattr(torch.ops.llava, search).default, (*given, 7))
    of_candidates = (torch.rand(2, 20), None, torch.rand(2, 20) > 0.5)
    torch.library.opcheck(torch.ops.llava.covering.default, (cosine, torch.zeros(2, 20), 7, *of_candidates))


def test_a_part_of_what_a_kernel_wrote_is_returned_as_if_it_were_all(monkeypatch):
    wider = torch.arange(40).view(2, 20)
    monkeypatch.setattr(duplicates, "compiled", lambda *given: wider[:, :7])
    found = torch.ops.llava.least_duplicated(torch.zeros(2, 20, 20), 7)
    assert found.is_contiguous() and torch.equal(found, wider[:, :7])
