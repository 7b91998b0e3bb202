"""Kills, wipes, freezes and restarts the workers of a fold group, by a seed that is printed."""

import os
import random
import signal
import time

from tests.support.fold import FoldGroup, FoldWorker, until


def seed_of_run() -> int:
    """`SEED` of the environment, else a new one; printed, for a failure is repeated with it."""
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10_000)
    print(f"seed {seed}")  # noqa: T201  # shown with a failure
    return seed


class Nemesis:
    """What happens to workers on a bad night; each call does one thing to one of them, and counts it."""

    def __init__(self, group: FoldGroup, seed: int, *, session_s: float) -> None:
        self.group, self.session_s = group, session_s
        self.random = random.Random(seed)
        self.done: dict[str, int] = {}

    def kill(self, *, wipe: bool = False) -> None:
        """`kill -9` and start again at once, on its disk or on an empty one."""
        worker = self._victim("kill and wipe" if wipe else "kill")
        worker.kill()
        if wipe:
            worker.wipe()
        worker.start()

    def zombie(self) -> None:
        """Freeze one beyond its session, then wake it."""
        worker = self._victim("zombie")
        worker.signal(signal.SIGSTOP)
        time.sleep(self.session_s + 2.5)
        worker.signal(signal.SIGCONT)

    def restart(self) -> None:
        """SIGTERM, and start again."""
        worker = self._victim("restart")
        # Before it says anything it has no handler of the signal, and nothing to lose.
        until(lambda: worker.status, what=f"{worker.name} has started")
        assert worker.terminate() == 0
        worker.start()

    def _victim(self, deed: str) -> FoldWorker:
        self.done[deed] = self.done.get(deed, 0) + 1
        return self.group.workers[self.random.choice(sorted(self.group.workers))]
