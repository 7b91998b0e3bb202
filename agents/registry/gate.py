"""Holds a push back until a pull has shown what the registry holds: a blind upsert would replace what is newer there.

A number asks number 0 for a pass, over the log; a pass that begins after that is over when number 0 says so, after all
that it found, in the same log. What changes meanwhile waits for the next one. One pass serves everybody who asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.events import STRUCTURED_HEADERS
from app.integrations.registry_messages import PASS_WANTED, key_of_number, pass_message

if TYPE_CHECKING:
    from app.engine import Context, Unit
    from app.topics import Topics

__all__ = ["Gate", "OpenGate"]

# Whoever had number 0 may be gone, and the wish with it.
ASK_AGAIN_S: Final = 10.0
MAX_KEYS: Final = 50_000


class OpenGate:
    """Where nothing is compared: every push may go."""

    closed = False
    shut = False
    held = 0

    def changed(self, key: bytes) -> None:
        """A row is to be told, or is to be told again."""

    def lets(self, key: bytes) -> bool:  # noqa: ARG002  # every one
        """Whether a row may be pushed."""
        return True

    def tick(self, unit: Unit) -> None:
        """Ask for a pass that is needed."""

    def over(self, token: str) -> bool:  # noqa: ARG002  # nobody asked
        """A pass is over; whether it was one that this number asked for."""
        return False


class Gate(OpenGate):
    """Of one number, in one life."""

    def __init__(self, context: Context, topics: Topics, numbers: int) -> None:
        self._context = context
        self._topics = topics
        self._numbers = numbers
        # Changed before the wish for a pass was sent, and after.
        self._waiting: set[bytes] = set()
        self._fresh: set[bytes] = set()
        self._all = True
        self._token: str | None = None
        self._count = 0
        self._ask_at_s = 0.0

    @property
    def closed(self) -> bool:  # type: ignore[override]
        """Whether a row may wait for a pass."""
        return self._all or self._token is not None or bool(self._fresh)

    @property
    def shut(self) -> bool:  # type: ignore[override]
        """Whether every row waits."""
        return self._all

    @property
    def held(self) -> int:  # type: ignore[override]
        """At most so many rows are held back that were not so when the gate last opened."""
        return len(self._waiting) + len(self._fresh)

    def changed(self, key: bytes) -> None:
        """See `OpenGate.changed`."""
        if len(self._fresh) < MAX_KEYS:
            self._fresh.add(key)
        else:
            # Everything waits, and for a pass that is not asked for yet.
            self._all, self._token = True, None
            self._fresh.clear()

    def lets(self, key: bytes) -> bool:
        """See `OpenGate.lets`."""
        return not (self._all or key in self._waiting or key in self._fresh)

    def tick(self, unit: Unit) -> None:
        """See `OpenGate.tick`."""
        now_s = self._context.clock.monotonic_s()
        if not self.closed:
            return
        if self._token is not None and now_s < self._ask_at_s:
            self._context.tick_at(self._ask_at_s)
            return
        if self._token is None:
            self._count += 1
            number = self._context.number
            self._token = f"{number}-{self._context.clock.now_ms()}-{self._count}"
            self._waiting |= self._fresh
            self._fresh.clear()
        self._ask_at_s = now_s + ASK_AGAIN_S
        self._context.tick_at(self._ask_at_s)
        source, now_ms = f"/vault-stream/{self._topics.app_id}", self._context.clock.now_ms()
        value = pass_message(PASS_WANTED, self._context.number, self._token, source, now_ms)
        unit.send(self._topics.registry_datasets, key_of_number(0, self._numbers), value, STRUCTURED_HEADERS)

    def over(self, token: str) -> bool:
        """See `OpenGate.over`."""
        if token != self._token:
            return False
        self._token, self._all = None, False
        self._waiting.clear()
        return True
