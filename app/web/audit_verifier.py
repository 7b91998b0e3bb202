"""A verification of the audit topic against its sealed batches, inside a worker: `audit verify --topic`, watched.

It reads what the command reads: the changelog of the table `audit` and then the topic, partition by partition. A worker
runs one at a time, between everything else that it does, and remembers the last few.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from app.engine import LogUnreadable
from app.events import format_time
from app.integrations.verification import TopicCheck
from tables.audit_sealed import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.integrations.verification import Finding, Verdict
    from app.web.audit_trail import AuditLog

__all__ = ["LIMIT_S", "MAX_BATCHES", "MAX_FINDINGS", "AuditVerifier", "Verification", "VerificationRuns"]

TP = tuple[str, int]

log = logging.getLogger("app.web.governance")

LIMIT_S: Final = 3600.0
MAX_BATCHES: Final = 100_000
"""About 40 MB while it runs."""
MAX_FINDINGS: Final = 20
"""Of each partition, that are named."""
REMEMBERED: Final = 5
# Others want the loop, too.
_RECORDS_A_TURN: Final = 32
_OWN_ERROR: Final[str | None] = "an error of the worker; its log has more"
_BY_COMMAND: Final = "`vault-stream audit verify --topic` does, and takes a time range"


class VerificationRuns(Exception):
    """There is one already."""

    def __init__(self, running: Verification) -> None:
        super().__init__(running.id)
        self.running = running


class _TooMany(Exception):
    """More sealed batches than a worker holds in memory."""


@dataclass(eq=False, slots=True)
class Verification:
    """One of them.

    Attributes:
        worker: Where it runs.
        state: `running`, `done`, `failed` (it says nothing about the trail) or `cancelled`.
        step: `batches`: what was sealed is read; `records`: the topic is compared with it.
        read: Records of both so far, by their offsets.
        total: Of them all; None until it is known.
        error: Why it failed.
        verdicts: Of the partitions that are compared.
    """

    id: str
    worker: str
    started_ms: int
    state: str = "running"
    step: str = "batches"
    read: int = 0
    total: int | None = None
    ended_ms: int | None = None
    error: str | None = None
    verdicts: list[Verdict] = field(default_factory=list)

    def show(self) -> dict[str, Any]:
        """As the API shows it; `ok` is null before the end, but false as soon as something is found."""
        broken = [(verdict, finding) for verdict in self.verdicts for finding in verdict.findings]
        whole = self.state == "done"
        shown: dict[str, Any] = {
            "id": self.id,
            "worker": self.worker,
            "state": self.state,
            "step": self.step,
            "started_at": format_time(self.started_ms),
            "ended_at": None if self.ended_ms is None else format_time(self.ended_ms),
            "read": self.read,
            "total": self.total,
            "ok": False if broken else True if whole else None,
            "error": self.error,
            "first_broken": None,
            "partitions": [_show_verdict(verdict) for verdict in self.verdicts],
        }
        if broken:
            verdict, finding = broken[0]
            shown["first_broken"] = {"partition": verdict.partition, **_show_finding(finding)}
        return shown


def _show_verdict(verdict: Verdict) -> dict[str, Any]:
    head = verdict.head or (None, None)
    return {
        "partition": verdict.partition,
        "ok": verdict.ok,
        "first": verdict.first,
        "from_start": verdict.from_start,
        "head_sequence": head[0],
        "head_hash": head[1],
        "checked": verdict.checked,
        "batches": verdict.batches,
        "unsealed": verdict.unsealed,
        "repeats": verdict.repeats,
        "findings": [_show_finding(finding) for finding in verdict.findings[:MAX_FINDINGS]],
        "not_named": max(0, len(verdict.findings) - MAX_FINDINGS),
    }


def _show_finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding)


class AuditVerifier:
    """Verifications of this worker.

    Args:
        worker: Its name.
        audit: The audit topic.
        changelog: Of the table `audit`; without governance there is none.
        kept_since_ms: Retention has taken nothing of this time or later.
        now_ms: Wall clock.
    """

    def __init__(
        self,
        worker: str,
        audit: AuditLog,
        changelog: AuditLog,
        kept_since_ms: Callable[[], int],
        now_ms: Callable[[], int],
        *,
        max_batches: int = MAX_BATCHES,
    ) -> None:
        self._worker = worker
        self._audit = audit
        self._changelog = changelog
        self._kept_since_ms = kept_since_ms
        self._now_ms = now_ms
        self._max_batches = max_batches
        self._known: deque[Verification] = deque(maxlen=REMEMBERED)
        self._task: asyncio.Task[None] | None = None

    @property
    def all(self) -> list[Verification]:
        """The newest first."""
        return list(reversed(self._known))

    def find(self, id_: str) -> Verification | None:
        """One that is remembered."""
        return next((one for one in self._known if one.id == id_), None)

    def start(self) -> Verification:
        """Begin.

        Raises:
            VerificationRuns: One at a time.
        """
        if self._known and self._known[-1].state == "running":
            raise VerificationRuns(self._known[-1])
        begun = Verification(str(uuid.uuid4()), self._worker, self._now_ms())
        self._known.append(begun)
        self._task = asyncio.create_task(self._run(begun), name=f"verification-{begun.id}")
        return begun

    async def cancel(self, verification: Verification) -> None:
        """End it; what has ended stays as it is."""
        task = self._task
        if verification.state == "running" and task is not None:
            task.cancel()
            await asyncio.wait([task])
            # One that was cancelled before its first step never ran.
            self._end(verification, "cancelled")

    async def close(self) -> None:
        """The worker ends."""
        for verification in self._known:
            await self.cancel(verification)

    async def _run(self, verification: Verification) -> None:
        state, error = "failed", _OWN_ERROR
        try:
            async with asyncio.timeout(LIMIT_S):
                await self._verify(verification)
            state, error = "done", None
        except asyncio.CancelledError:
            state, error = "cancelled", None
            raise
        except TimeoutError:
            error = f"it took more than {LIMIT_S / 60:.0f} minutes, for which a worker does not verify; {_BY_COMMAND}"
        except _TooMany:
            error = (
                f"there are more than {self._max_batches} sealed batches, which a worker does not hold; {_BY_COMMAND}"
            )
        except LogUnreadable as unreadable:
            error = f"Kafka could not be read to the end ({unreadable}); try again"
        except Exception:
            log.exception("a verification failed")
        finally:
            self._end(verification, state, error)

    def _end(self, verification: Verification, state: str, error: str | None = None) -> None:
        if verification.state == "running":
            verification.state, verification.error = state, error
            verification.ended_ms = self._now_ms()
            log.info("a verification ended", extra={"state": state, "ok": verification.show()["ok"]})

    async def _verify(self, verification: Verification) -> None:
        # The batches first: every record that they speak of is in the topic by then.
        places = await self._changelog.bounds()
        sealed = await self._sealed(verification, places)
        bounds = await self._audit.bounds()
        verification.step = "records"
        verification.total = _count(places) + _count(bounds)
        done = _count(places)
        by_partition = {partition: (tp, at) for tp, at in bounds.items() for partition in (tp[1],)}
        # One at a time, for the batches of one are in memory.
        for partition in sorted({*by_partition, *sealed.rows}):
            check = TopicCheck(partition, sealed.batches(partition), None, self._kept_since_ms())
            verification.read = done
            end = 0
            if partition in by_partition:
                tp, (begin, end) = by_partition[partition]
                await self._compare(verification, tp, (begin, end), check)
                done += end - begin
            verification.verdicts.append(check.end(end))
        verification.read = verification.total

    async def _sealed(self, verification: Verification, places: Mapping[TP, tuple[int, int]]) -> Sealed:
        sealed = Sealed()
        start, until = ({tp: at[side] for tp, at in places.items()} for side in (0, 1))
        async with aclosing(self._changelog.read(start, until)) as blocks:
            async for records in blocks:
                for record in records:
                    sealed.put(record.key, record.value)
                verification.read += len(records)
                if sum(map(len, sealed.rows.values())) > self._max_batches + len(sealed.rows):
                    raise _TooMany
                await asyncio.sleep(0)
        return sealed

    async def _compare(self, verification: Verification, tp: TP, range_: tuple[int, int], check: TopicCheck) -> None:
        (begin, end), before = range_, verification.read
        async with aclosing(self._audit.read({tp: begin}, {tp: end})) as blocks:
            async for records in blocks:
                for number, record in enumerate(records):
                    check.add(record.offset, record.timestamp, record.value)
                    if number % _RECORDS_A_TURN == 0:
                        await asyncio.sleep(0)
                verification.read = before + records[-1].offset + 1 - begin


def _count(bounds: Mapping[TP, tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in bounds.values())
