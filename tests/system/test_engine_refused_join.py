"""A group that refuses a worker: it says why, and goes on or ends, and never waits in silence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, until

pytestmark = pytest.mark.kafka

TOO_SHORT_S = "3"
"""A session shorter than the `group.min.session.timeout.ms` of 6 s that brokers have."""


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("refused"), tmp_path, numbers=2)
    yield group
    group.close()


def test_a_join_that_the_group_refuses_is_named_in_readiness_and_the_others_work(group: FoldGroup) -> None:
    refused, other = group.start("w1", SESSION=TOO_SHORT_S) + group.start("w2")
    until(lambda: any("InvalidSessionTimeout" in reason for reason in refused.reasons), what="named")
    assert not refused.ready

    until(lambda: other.ready and other.numbers == [0, 1], what="the other has everything")
    group.produce(0, 200)
    until(lambda: group.counted().total() == 400, what="counted")


@pytest.mark.prove
def test_a_join_that_stays_refused_ends_the_process_for_its_supervisor(group: FoldGroup) -> None:
    (refused,) = group.start("w1", SESSION=TOO_SHORT_S)

    assert refused.process.wait(120) == 70
    assert "the group coordinator has failed for 60 s" in refused.log


@pytest.mark.prove
def test_the_proof_fails_for_an_engine_that_does_not_ask_the_coordinator(group: FoldGroup) -> None:
    (refused,) = group.start("w1", SESSION=TOO_SHORT_S, BROKEN="coordinator_not_asked")
    until(lambda: refused.status, what="started")

    with pytest.raises(AssertionError):
        until(lambda: any("InvalidSessionTimeout" in reason for reason in refused.reasons), 20)
