from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from llava.bench import reference, select
from llava.bench.select import Case, make_cues, measure_case

METHODS = ("cdpruner", "divprune", "vispruner", "mfpruner", "scope", "mmtok", "eadp")


@pytest.mark.parametrize("features", select.FEATURES)
@pytest.mark.parametrize("method", METHODS)
def test_every_pruner_picks_what_its_plain_form_picks(method, features, cpu):
    batch = 1 if method in ("mfpruner", "eadp") else 2  # two images have extremes of their own
    row = measure_case(Case(method, batch, 100, 64, 12, features), cpu, reps=1, seed=0)
    assert row["equal"]
    assert (row["B"], row["N"], row["D"], row["T"], row["n"]) == (batch, 100, 64, 12, 1)
    assert row["full_gram_gflop"] == pytest.approx(2 * batch * 100 * 100 * 64 / 1e9)
    assert row["ops_per_token"] * 12 == pytest.approx(row["ops"])
    assert row["ratio_to_reference"] > 0


def test_another_choice_is_reported(cpu, monkeypatch):
    monkeypatch.setattr(reference, "divprune", lambda embeds, budget: torch.arange(budget).repeat(len(embeds), 1))
    assert not measure_case(Case("divprune", 1, 100, 64, 12), cpu, reps=1, seed=0)["equal"]


def test_no_pruner_multiplies_more_than_the_full_gram(cpu):
    shares = {}
    for method in METHODS:
        row = measure_case(Case(method, 1, 512, 1024, 16), cpu, reps=1, seed=0)
        shares[method] = row["gram_gflop"] / row["full_gram_gflop"]
    assert max(shares.values()) < 0.7
    assert shares["mfpruner"] < 0.02


def test_cues_follow_from_the_seed(cpu):
    case = Case("cdpruner", 1, 36, 16, 4)
    first, again, other = (make_cues(case, seed, cpu) for seed in (0, 0, 1))
    assert torch.equal(first.embeds, again.embeds) and torch.equal(first.relevance, again.relevance)
    assert not torch.equal(first.embeds, other.embeds)


@pytest.mark.parametrize("tokens", [576, 1152, 1200])
def test_smooth_tokens_resemble_their_neighbours_more_than_others(cpu, tokens):
    embeds = make_cues(Case("cdpruner", 1, tokens, 256, 4), 0, cpu).embeds[0]
    cosine = torch.nn.functional.cosine_similarity
    neighbours = cosine(embeds[:-1], embeds[1:], dim=1).mean()
    assert neighbours > cosine(embeds, embeds.roll(tokens // 2, dims=0), dim=1).mean() + 0.05


def test_the_cases_cover_every_method_a_large_set_and_five_tiles():
    rows = select.cases(4096)
    assert {row.method for row in rows} == set(METHODS)
    assert {row.width for row in rows if row.method == "vispruner"} == {1024}
    assert {(row.method, row.tokens, row.kept) for row in rows} >= {("cdpruner", 2880, 288), ("mfpruner", 2880, 288)}
    assert any(row.batch == 5 for row in rows)
    assert len(set(rows)) == len(rows)


@pytest.fixture
def pretended_graphs(monkeypatch):
    """CUDA's graphs, as far as a machine without a GPU can have them: a replay does nothing but count."""
    replays = []
    graph = SimpleNamespace(replay=lambda: replays.append(1))
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {"Stream": lambda: stream, "current_stream": lambda: stream, "CUDAGraph": lambda: graph}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    return replays


def test_a_captured_selection_is_called_no_more(pretended_graphs):
    calls = []
    replay = select.captured(lambda: calls.append(1) or torch.arange(3))
    assert len(calls) == 3 and torch.equal(replay(), torch.arange(3)) and len(calls) == 3
    assert len(pretended_graphs) == 2


def test_one_that_chooses_otherwise_or_cannot_be_captured_is_left_out_with_a_warning(pretended_graphs, caplog):
    picks = iter([torch.arange(3), torch.arange(3), torch.ones(3)])
    assert select.captured(lambda: next(picks)) is None
    assert "chooses otherwise" in caplog.text

    def recorded():
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.arange(3)

    calls = []
    assert select.captured(recorded) is None
    assert "cannot be captured: operation not permitted" in caplog.text
