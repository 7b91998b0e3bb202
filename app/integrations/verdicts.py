"""What a check of the audit chain found."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Finding", "Verdict"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was sealed.

    Attributes:
        kind: `edited`, `removed`, `inserted`, `repeated`, `swapped`, `truncated` or `unreadable`.
        sequence: The entry that it shows at, if one can be named.
        batch: The id of the sealed batch that it shows in, on the topic.
        detail: For a person.
    """

    kind: str
    detail: str
    sequence: int | None = None
    batch: str | None = None


@dataclass(slots=True)
class Verdict:
    """What was found in one partition.

    Attributes:
        first: The sequence from which on everything was checked; None if nothing could be.
        from_start: Whether that is the beginning of the chain; else what came before it is taken on trust.
        head: Sequence and hash of the last entry checked.
        checked: Entries checked.
        batches: Sealed batches compared (topic only).
        unsealed: Entries after the last sealed batch (topic only): nothing to compare them with yet.
        repeats: Entries whose event has one before them: a repeat of the router, not a fault.
        ended: Whether a trailer or a noted head says where it ends, so that a cut tail shows (export only).
        filtered: Whether the entries between were left out on purpose, so that they are not chained (export only).
    """

    partition: int
    first: int | None = None
    from_start: bool = False
    head: tuple[int, str] | None = None
    checked: int = 0
    batches: int = 0
    unsealed: int = 0
    repeats: int = 0
    ended: bool = False
    filtered: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
