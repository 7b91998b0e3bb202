"""The benchmark runs and measures something; how much is not for a test to say."""

from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from benchmarks.bench import Bench
from benchmarks.course import run_rounds
from benchmarks.report import Results

pytestmark = pytest.mark.kafka


def test_a_contender_is_measured_against_the_bare_client(kafka: KafkaServer, tmp_path: Path) -> None:
    bench = Bench(kafka.bootstrap, tmp_path, seconds=1)

    rounds = run_rounds(bench, ["bare", "row"], 1)
    results = Results(rounds, {}, bench.seconds, 1.0)

    assert rounds[0]["row"].events > 0
    assert results.ratios["row_ratio_bare"] > 0
    assert "row_ratio_bare" in results.chart()
