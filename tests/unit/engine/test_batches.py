"""Many records put into a batch by one call are what aiokafka's own calls, one by one, make of them."""

from collections.abc import Callable
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from app.engine.output_queue import Message
from app.engine.producer import append_many

BATCH_BYTES = 300
some_bytes = st.binary(max_size=60)
headers = st.lists(st.tuples(st.sampled_from(["a", "bc"]), some_bytes), max_size=2).map(tuple)
wrong = st.sampled_from([Message("t", b"k", "text"), Message("t", 5, b"v"), Message("t", b"k", b"v", 5)])  # type: ignore[arg-type]
messages = st.lists(
    st.builds(Message, st.just("t"), some_bytes | st.none(), some_bytes | st.none(), headers) | wrong, max_size=8
)


def records_of(batch: BatchBuilder) -> list[Any]:
    return [(r.offset, r.key, r.value, r.headers) for r in DefaultRecordBatch(bytes(batch._build()))]


def append_each(batch: BatchBuilder, many: list[Message]) -> None:
    for m in many:
        if batch.append(timestamp=None, key=m.key, value=m.value, headers=list(m.headers)) is None:
            return


def refusal(append: Callable[[BatchBuilder, list[Message]], None], batch: BatchBuilder, many: list[Message]) -> str:
    try:
        append(batch, many)
    except Exception as error:  # noqa: BLE001  # whatever aiokafka says of it
        return repr(error)
    return ""


@given(st.lists(messages, max_size=3))
def test_a_batch_has_the_same_records_is_full_at_the_same_and_refuses_the_same(groups: list[list[Message]]) -> None:
    ours, theirs = BatchBuilder(BATCH_BYTES, 0), BatchBuilder(BATCH_BYTES, 0)
    for group in groups:
        assert refusal(append_many, ours, group) == refusal(append_each, theirs, group)
        assert (ours.record_count(), ours.closed()) == (theirs.record_count(), theirs.closed())

    assert ours.record_count() == 0 or records_of(ours) == records_of(theirs)
