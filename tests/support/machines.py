"""Plays state machines: the same examples for everybody under CI, many more in `make prove`."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.support.report import report

# They measure the machine that runs the tests, or our choice of rules; neither is what is promised.
_UNASKED = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
PROVEN = 400


R = TypeVar("R", bound=Callable[..., None])


def action(weight: int = 1, when: Callable[[Any], object] = lambda _: True) -> Callable[[R], R]:
    """One thing that may happen in a history; it draws what it needs from its `data`."""

    def mark(function: R) -> R:
        function.action = (weight, when)
        return function

    return mark


class Machine(RuleBasedStateMachine):
    """Histories of actions, the likelier ones more often.

    A rule for each would be left out of every second history by Hypothesis, and most histories would be about nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        members = [(name, getattr(type(self), name)) for name in dir(type(self))]
        self._actions = [(name, *member.action) for name, member in members if hasattr(member, "action")]

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        names = [name for name, weight, when in self._actions if when(self) for _ in range(weight)]
        getattr(self, data.draw(st.sampled_from(names), label="action"))(data)


def new_folder() -> Path:
    """In memory where there is such a place: RocksDB waits for the disk at each opening, and a history has many."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
    return Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))


def play(machine: Callable[[], RuleBasedStateMachine], examples: int, steps: int, title: str = "") -> None:
    """Run a machine through so many random histories of at most so many steps; a full count is reported."""
    began_s = time.perf_counter()
    # Whoever repeats it elsewhere gets the shortest history; a red CI run must not take five minutes more to say so.
    phases = [phase for phase in settings().phases if phase is not Phase.shrink or not settings().derandomize]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=phases,
            suppress_health_check=_UNASKED,
        ),
    )
    if examples >= PROVEN:
        seconds = round(time.perf_counter() - began_s, 1)
        report(title or str(machine), {"histories": examples, "steps in each, at most": steps, "seconds": seconds})


def caught(machine: Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> BaseException | None:
    """What a machine finds wrong with something broken on purpose.

    Which histories it plays depends on what was imported before, so that luck may be bad: then it plays twenty times as
    many before it says None.
    """
    for histories in (examples, examples * 20):
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=histories,
                    stateful_step_count=steps,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=_UNASKED,
                    print_blob=False,
                    report_multiple_bugs=False,
                ),
            )
        except AssertionError as error:
            return error
    return None
