"""What a workload must lead to, and whether it did: arithmetic on sets, no network.

An event is known by its `(source, id)`, as everywhere. Nothing here asks the processor what it thinks it did: the
expected side is computed from the events, the observed side from what stood at the other end.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from app.devstack.workload import BrokenRecord
from app.events import VaultEventType
from app.publishing import VaultEvent

__all__ = [
    "FLAKY_PATTERN",
    "HANGING_PATTERN",
    "HONEST_PATTERN",
    "EventKey",
    "Expected",
    "Observed",
    "Result",
    "expect",
    "settle",
]

EventKey = tuple[str, str]
"""Source and id."""

HONEST_PATTERN: Final = "*"
FLAKY_PATTERN: Final = "dataset.*"
HANGING_PATTERN: Final = "health.degraded"


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be seen, by whom.

    Attributes:
        honest: Events that the receiver of everything must accept.
        flaky: Events that the receiver of dataset events must accept, in the end.
        hanging: Events that must wait for the receiver that never answers.
        audited: Events that the dashboard must have.
        violations: Ids of the violations that the policy engine must have.
        datasets: Datasets that must be in the registry.
        gone: Datasets that must not be in it.
    """

    honest: frozenset[EventKey]
    flaky: frozenset[EventKey]
    hanging: frozenset[EventKey]
    audited: frozenset[EventKey]
    violations: frozenset[str]
    datasets: frozenset[str]
    gone: frozenset[str]


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen. Sets may hold more than was expected: events of the system about itself, for one.

    Attributes:
        waiting: Events that the API shows as pending, retrying or failed for the hanging receiver.
        duplicates: Deliveries that were accepted before and came again.
        signatures_bad: Requests whose signatures did not verify.
        bodies_changed: Deliveries that came again with other bytes.
        chain_ok: Whether the audit chain holds in every partition.
        quarantined: Reason by record key, `topic/partition/offset`.
    """

    honest: Collection[EventKey]
    flaky: Collection[EventKey]
    waiting: Collection[EventKey]
    audited: Collection[EventKey]
    violations: Collection[str]
    datasets: Collection[str]
    quarantined: Mapping[str, str]
    duplicates: int
    signatures_bad: int
    bodies_changed: int
    chain_ok: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a demo; `as_json` has the stable names.

    Attributes:
        lost: Expected effects that were not observed, of all kinds.
        ok: Nothing was lost, nothing was wrong.
    """

    events: int
    deliveries_expected: int
    deliveries_observed: int
    waiting_expected: int
    waiting_observed: int
    duplicates: int
    signatures_bad: int
    bodies_changed: int
    audit_expected: int
    audit_observed: int
    chain_ok: bool
    violations_expected: int
    violations_observed: int
    datasets_expected: int
    datasets_registered: int
    datasets_stale: int
    quarantined_expected: int
    quarantined: int
    quarantined_wrongly: int
    lost: int
    ok: bool = field(default=False)

    def as_json(self) -> dict[str, Any]:
        """One object, for machines."""
        return asdict(self)


def expect(events: Sequence[VaultEvent]) -> Expected:
    """What the events must lead to."""
    keys = frozenset((event.source, event.id) for event in events)

    def of(*kinds: VaultEventType) -> list[VaultEvent]:
        return [event for event in events if event.type in kinds]

    created = {event.data["dataset_id"] for event in of(VaultEventType.DATASET_CREATED)}
    deleted = {event.data["dataset_id"] for event in of(VaultEventType.DATASET_DELETED)}
    return Expected(
        honest=keys,
        flaky=frozenset((event.source, event.id) for event in events if event.type.split(".")[2] == "dataset"),
        hanging=frozenset((event.source, event.id) for event in of(VaultEventType.HEALTH_DEGRADED)),
        audited=keys,
        violations=frozenset(event.id for event in of(VaultEventType.POLICY_VIOLATION)),
        datasets=frozenset(created - deleted),
        gone=frozenset(deleted),
    )


def settle(expected: Expected, broken: Mapping[str, BrokenRecord], observed: Observed) -> Result:
    """Compares; everything expected and not observed is lost.

    Args:
        expected: From `expect`.
        broken: The broken records, by the `topic/partition/offset` at which the broker put them.
        observed: From the other ends.
    """
    honest, flaky = expected.honest & set(observed.honest), expected.flaky & set(observed.flaky)
    waiting = expected.hanging & set(observed.waiting)
    audited = expected.audited & set(observed.audited)
    violations = expected.violations & set(observed.violations)
    datasets = expected.datasets & set(observed.datasets)
    quarantined = {key for key, record in broken.items() if observed.quarantined.get(key) == record.reason}
    wrongly = len(set(observed.quarantined) - quarantined)
    stale = len(expected.gone & set(observed.datasets))
    lost = (
        len(expected.honest - honest)
        + len(expected.flaky - flaky)
        + len(expected.hanging - waiting)
        + len(expected.audited - audited)
        + len(expected.violations - violations)
        + len(expected.datasets - datasets)
        + len(broken.keys() - quarantined)
    )
    wrong = (observed.signatures_bad, observed.bodies_changed, stale, wrongly)
    return Result(
        events=len(expected.honest),
        deliveries_expected=len(expected.honest) + len(expected.flaky),
        deliveries_observed=len(honest) + len(flaky),
        waiting_expected=len(expected.hanging),
        waiting_observed=len(waiting),
        duplicates=observed.duplicates,
        signatures_bad=observed.signatures_bad,
        bodies_changed=observed.bodies_changed,
        audit_expected=len(expected.audited),
        audit_observed=len(audited),
        chain_ok=observed.chain_ok,
        violations_expected=len(expected.violations),
        violations_observed=len(violations),
        datasets_expected=len(expected.datasets),
        datasets_registered=len(datasets),
        datasets_stale=stale,
        quarantined_expected=len(broken),
        quarantined=len(quarantined),
        quarantined_wrongly=wrongly,
        lost=lost,
        ok=lost == 0 and observed.chain_ok and not any(wrong),
    )
