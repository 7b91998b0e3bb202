"""Incremental fetch sessions (KIP-227): a fetch names what changed since the last one, and so does its answer.

aiokafka names every partition in every fetch, and the broker answers for every one. A worker has hundreds, of which a
few have something new: at a hundred events a second that was most of what it did, and each event waited for it twice.

What a broker may do, and what becomes of it here: it may forget the session, be another one by now, or have read a
request whose answer was lost. It then refuses the next epoch, and the next fetch names everything again. It never reads
from another offset than the one that was asked for last.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.protocol.fetch import FetchRequest

from app.engine.fetch_pace import FetchPace
from app.engine.header_names import KeptRecords

__all__ = ["FetchSession", "SessionFetcher"]

log = logging.getLogger("app.engine.consumer")

# The first version whose schema is used here; Kafka 2.3. An older broker gets aiokafka's own requests.
SESSION_VERSION = 11
_FULL_EPOCH = 0
_LAST_EPOCH = 2**31 - 1
_SESSION_NOT_FOUND = 70
# While its brokers are busy a fetcher looks at no partition; but one that answers no more loses its partitions.
_LOOK_AGAIN_S = 0.5
_EXPECTED = (_SESSION_NOT_FOUND, 71)  # the second: another epoch

TP = tuple[str, int]


def _shuffled(wanted: Iterable[tuple[TP, int]]) -> list[tuple[TP, int]]:
    """In another order each time: where an answer has no room for all, the broker begins with the first."""
    found = list(wanted)
    random.shuffle(found)
    return found


class FetchSession:
    """What one broker remembers of our fetches.

    Attributes:
        offsets: Where it reads each partition.
        silent: The last request had no answer.
    """

    def __init__(self) -> None:
        self.offsets: dict[TP, int] = {}
        self.silent = False
        self._id = 0
        self._epoch = _FULL_EPOCH

    def ask(self, wanted: dict[TP, int], max_bytes: int) -> tuple[int, int, Any, Any]:
        """The next request: session id, epoch, what is new or is read elsewhere, and what is not wanted any more.

        Args:
            wanted: The offset of each partition that is wanted.
            max_bytes: Of one partition.
        """
        if self._epoch == _FULL_EPOCH:
            self.offsets = {}
        known = self.offsets
        changed: dict[str, list[tuple[int, int, int, int, int]]] = {}
        # As sets, because of hundreds hardly any has changed.
        for (topic, partition), offset in _shuffled(wanted.items() - known.items()):
            # -1: no leader epoch, and no log start, which only followers have.
            changed.setdefault(topic, []).append((partition, -1, offset, -1, max_bytes))
        forgotten: dict[str, list[int]] = {}
        for topic, partition in known.keys() - wanted.keys():
            forgotten.setdefault(topic, []).append(partition)
        self.offsets = wanted
        return self._id, self._epoch, list(changed.items()), list(forgotten.items())

    def answered(self, response: Any) -> bool:
        """Note an answer; False: it refuses the session, and says nothing of any partition."""
        self.silent = False
        if response.API_VERSION < SESSION_VERSION:
            return True
        if response.error_code:
            self.lost()
            if response.error_code == _SESSION_NOT_FOUND:
                self._id = 0
            return False
        # A broker that has no room for a session gives none, and goes on being asked for everything.
        self._id = response.session_id
        self._epoch = _FULL_EPOCH if not self._id else 1 if self._epoch == _LAST_EPOCH else self._epoch + 1
        return True

    def lost(self) -> None:
        """Nobody knows what the broker has read: the next fetch closes the session and opens another one."""
        self._epoch = _FULL_EPOCH


class _Request(FetchRequest):  # type: ignore[misc]  # aiokafka ships no types
    """A fetch within a session, where the broker knows sessions."""

    def __init__(self, fetcher: Any, session: FetchSession, wanted: dict[TP, int]) -> None:
        super().__init__(
            fetcher._fetch_max_wait_ms,
            fetcher._fetch_min_bytes,
            fetcher._fetch_max_bytes,
            fetcher._isolation_level,
            [],
            fetcher._client_rack or "",
        )
        self.session = session
        self._wanted = wanted
        self._most_bytes: int = fetcher._max_partition_fetch_bytes

    @property
    def topics(self) -> list[tuple[str, list[tuple[int, int, int]]]]:
        """All that is wanted, as an older broker is told it."""
        found: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, partition), offset in _shuffled(self._wanted.items()):
            found.setdefault(topic, []).append((partition, offset, self._most_bytes))
        return list(found.items())

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class.API_VERSION < SESSION_VERSION:
            self.session.offsets, self._topics = self._wanted, self.topics
            return super().build(request_struct_class)
        limits = (-1, self._max_wait_ms, self._min_bytes, self._max_bytes, self._isolation_level)
        return request_struct_class(*limits, *self.session.ask(self._wanted, self._most_bytes), self._rack_id)


class SessionFetcher(Fetcher):  # type: ignore[misc]  # aiokafka ships no types
    """aiokafka's fetcher with sessions, one a broker; there is one fetch at a time to each."""

    @classmethod
    def adopt(cls, fetcher: Any, pace: FetchPace) -> None:
        """Turn a fetcher that has no assignment yet into one of this class."""
        fetcher.__class__ = cls
        vars(fetcher).update(_sessions={}, _sessions_of=None, _leaders=frozenset(), _looked_s=0.0, _pace=pace)

    _sessions: dict[int, FetchSession]
    _sessions_of: Any
    _leaders: frozenset[int]
    _looked_s: float
    _pace: FetchPace

    def _get_actions_per_node(self, assignment: Any) -> Any:
        """What is fetched now: aiokafka's own answer costs a microsecond a partition, each time that it wakes up."""
        now_s = time.monotonic()
        if wait_s := self._pace.wait_s(now_s):
            return [], {}, wait_s, False, []
        if self._sessions_of is not assignment:
            # What a broker has told us of partitions went with the old assignment, and it would not repeat it.
            for session in self._sessions.values():
                session.lost()
            self._sessions_of, self._leaders = assignment, frozenset()
        blocked, timeout_s = self._blocked()
        if now_s < self._looked_s + _LOOK_AGAIN_S and self._leaders and self._leaders <= blocked:
            return [], {}, timeout_s, False, []
        wanted: dict[int, dict[TP, int]] = {}
        leaders = set(blocked)
        held, leader_of, state_of = self._records, self._client.cluster.leader_for_partition, assignment.state_value
        for tp in assignment.tps:
            node, state = leader_of(tp), state_of(tp)
            if tp in held:
                leaders.add(node)
                continue
            if node is None or node < 0 or not state.has_valid_position or state.paused:
                # Rare, and much more than a fetch.
                return self._all_actions(assignment, now_s)
            wanted.setdefault(node, {})[tp] = state.position
        self._leaders, self._looked_s = frozenset(leaders | wanted.keys()), now_s
        fetches = [(n, _Request(self, self._session(n), tps)) for n, tps in wanted.items() if n not in blocked]
        if fetches:
            self._pace.sent(now_s)
        return fetches, {}, timeout_s, False, []

    def _blocked(self) -> tuple[set[int], float]:
        """Brokers of which something is on its way, or is here and was not taken yet; and until when, in seconds."""
        backing_off: dict[int, float] = {}
        for tp, fetched in self._records.items():
            if backoff_s := fetched.calculate_backoff():
                node = self._client.cluster.leader_for_partition(tp)
                backing_off[node] = max(backing_off.get(node, 0.0), backoff_s)
        return self._in_flight | backing_off.keys(), min(backing_off.values(), default=self._fetcher_timeout)

    def _all_actions(self, assignment: Any, now_s: float) -> Any:
        self._leaders = frozenset()
        fetches, *others = super()._get_actions_per_node(assignment)
        if fetches:
            self._pace.sent(now_s)
        wanted = [(n, {(t, p): at for t, parts in whole.topics for p, at, _ in parts}) for n, whole in fetches]
        return [(n, _Request(self, self._session(n), tps)) for n, tps in wanted], *others

    def _session(self, node: int) -> FetchSession:
        found = self._sessions.get(node)
        if found is None:
            found = self._sessions[node] = FetchSession()
        return found

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        session: FetchSession = request.session
        try:
            response = await self._client.send(node_id, request)
        except kafka_errors.KafkaError as error:
            session.lost()
            # Once an outage: it is tried again ten times a second.
            log.log(logging.DEBUG if session.silent else logging.WARNING, "fetch from broker %s: %r", node_id, error)
            session.silent = True
            self._invalidate_preferred_read_replica_for_node(node_id, request)
            await asyncio.sleep(self._retry_backoff)
            return False
        except BaseException as error:
            session.lost()
            if isinstance(error, asyncio.CancelledError):
                # The assignment is over, or all is; aiokafka's own task does not wait for more.
                return False
            raise
        if not session.answered(response):
            if response.error_code not in _EXPECTED:
                log.warning("fetch from broker %s: %s", node_id, kafka_errors.for_code(response.error_code).__name__)
                await asyncio.sleep(self._retry_backoff)
            return False
        if not assignment.active:
            return False
        now_ms, woken = int(1000 * time.time()), False
        for topic, partitions in response.topics:
            for partition in partitions:
                tp = TopicPartition(topic, partition[0])
                woken |= self._partition_answered(assignment, tp, partition[1:], session.offsets.get(tuple(tp)), now_ms)
        return woken

    def _partition_answered(self, assignment: Any, tp: Any, answer: Any, asked: int | None, now_ms: int) -> bool:
        """Keep what came of one partition; whether somebody should look at it.

        Of an answer that is dropped, because the partition is read elsewhere by now, the end of the log goes with it,
        and the broker does not repeat that while no record comes. Only lag is made of it, which has another source.
        """
        code, highwater, stable, *more, batches = answer
        state = assignment.state_value(tp)
        if asked is None or state is None or not state.has_valid_position or state.position != asked:
            # It was read elsewhere meanwhile.
            return False
        if code:
            return self._partition_failed(tp, kafka_errors.for_code(code), asked)
        state.highwater, state.lso, state.timestamp = highwater, stable, now_ms
        records = KeptRecords(batches)
        if not records.has_next():
            return False
        if len(batches) * 2 > self._max_partition_fetch_bytes:
            self._pace.more()
        fetched = PartitionRecords(
            tp,
            records,
            # The log's start comes before them since version 5.
            more[1] if len(more) > 1 else more[0],
            asked,
            self._key_deserializer,
            self._value_deserializer,
            self._check_crcs,
            self._isolation_level,
        )
        self._records[tp] = FetchResult(
            tp, assignment=assignment, partition_records=fetched, backoff=self._prefetch_backoff
        )
        return True

    def _partition_failed(self, tp: Any, error: type[kafka_errors.KafkaError], asked: int) -> bool:
        self._preferred_read_replica.pop(tp, None)
        if error in (kafka_errors.NotLeaderForPartitionError, kafka_errors.UnknownTopicOrPartitionError):
            self._client.force_metadata_update()
            return False
        if error is kafka_errors.OffsetOutOfRangeError:
            self._set_error(tp, error({tp: asked}))
            return True
        if error is kafka_errors.TopicAuthorizationFailedError:
            self._set_error(tp, error(tp.topic))
            return True
        log.warning("fetch of %s/%d: %s", tp.topic, tp.partition, error.__name__)
        return False
