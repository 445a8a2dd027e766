import json
from datetime import datetime

import pytest

from llava.eval.results.latency import save_latency

FORMAT = "%Y-%m-%d %H:%M:%S"


def test_the_statistics_are_those_of_the_answers(put):
    answers = [{"metadata": {"latency_ms": value}} for value in (2.0, 4.0, 9.0)] + [{"metadata": {"error": "broken"}}]
    path = save_latency(put("vtn_64.jsonl", answers))
    assert path.name == "vtn_64_latency.json"
    written = json.loads(path.read_text())
    assert written["statistics"].pop("std_ms") == pytest.approx((26 / 3) ** 0.5)
    assert written["statistics"] == {
        "count": 3, "average_ms": 5.0, "min_ms": 2.0, "max_ms": 9.0, "median_ms": 4.0, "total_ms": 15.0
    }  # fmt: skip
    assert written["individual_latencies"] == [2.0, 4.0, 9.0]
    assert datetime.strptime(written["timestamp"], FORMAT)


def test_answers_without_a_latency_make_no_file(put):
    assert save_latency(put("a.jsonl", [{"metadata": {}}])) is None
