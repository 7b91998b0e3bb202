"""What a process has cost so far, by what Linux tells of it."""

import os
import time
from pathlib import Path
from typing import Final

__all__ = ["cpu_s", "peak_rss_mb", "rss_mb"]

CPUCLOCK_SCHED: Final = 2


def cpu_s(pid: int) -> float:
    """Processor time of all threads, by the clock that the kernel keeps of a process; /proc has it in ticks only."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def rss_mb(pid: int) -> float:
    """Resident memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_rss_mb(pid: int | str = "self") -> float:
    """The largest resident memory of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) / 1024, 1)
