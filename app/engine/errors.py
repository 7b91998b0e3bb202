"""What can go wrong in the engine.

```
EngineError
├── Retriable            an agent asks for the same slice again, after a back-off
├── Revoked              the number is not ours any more; nothing of the unit was kept
│   └── StoreError       it is ours, but its local copy fails: no fault of the records
│       ├── StoreDamaged     what is on the disk cannot be trusted; it is removed and restored from the log
│       └── StoreFailed      the disk takes nothing more; the process ends
├── OutputFailed         Kafka did not acknowledge; the outcome is unknown
│   └── OutputTooLarge   Kafka refuses the record for its size, however often it is sent
├── PositionLost         the partition can no longer be read from where we stand; the number is reopened
├── CheckpointFailed     the changelog did not acknowledge; the number is reopened
├── NotMember            the group did not confirm us; ask again later
├── ProducerTaken        another worker has opened this number's producer since we did
├── PositionRefused      a position cannot be trusted; an operator must decide
├── StartRefused         the worker must not start; one line says why
└── RowTooLarge          a row is larger than Kafka may carry
```

`retriable` says whether the same call can succeed later without a change by a person.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""

    retriable = False


class Retriable(EngineError):
    """Raised by an agent: run the same slice again.

    Args:
        message: Why; shown in the log and in `/health`.
        after_s: The least time to wait before the next run, in seconds.
    """

    retriable = True

    def __init__(self, message: str = "", *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Revoked(EngineError):
    """The assignment that this work belongs to has ended; its new owner does it again."""


class StoreError(Revoked):
    """The local copy of a number's tables fails, so this opening of the number has ended; the log has everything."""


class StoreDamaged(StoreError):
    """What was read back is not what was written; the copy is removed and restored."""

    retriable = True


class StoreFailed(StoreError):
    """The disk is full, read-only or gone: only a person helps, and other workers can serve the numbers meanwhile."""


class OutputFailed(EngineError):
    """A batch was not acknowledged in time; it may or may not be in the topic.

    Attributes:
        refused: The brokers do not let us, which was said already.
    """

    retriable = True
    refused = False


class OutputTooLarge(OutputFailed):
    """A record is larger than its topic takes.

    Args:
        topic: The topic.
        partition: Its partition.
    """

    retriable = False

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}/{partition} takes no record of that size")
        self.topic = topic


class PositionLost(EngineError):
    """Retention, or a topic made again, took the offset that we read next; the opening decides what that means."""

    retriable = True


class CheckpointFailed(EngineError):
    """The changelog transaction has no known outcome, so the number is read again from the log."""

    retriable = True


class NotMember(EngineError):
    """The group coordinator did not confirm our generation."""

    retriable = True


class ProducerTaken(EngineError):
    """The broker refused our producer id: someone else initialised the transactional id after us."""

    retriable = True


class PositionRefused(EngineError):
    """A stored position contradicts its topic; skipping or repeating history is not ours to choose.

    Args:
        topic: The source topic.
        partition: Its partition.
        message: What is wrong, with the position, the end and the command that resolves it.
    """

    def __init__(self, topic: str, partition: int, message: str) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition


class StartRefused(EngineError):
    """The process must not start as configured; the text is one line for the operator."""


class RowTooLarge(EngineError):
    """A row beyond `table.ROW_LIMIT_BYTES`, which no changelog record may carry."""
