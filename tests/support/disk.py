"""Bad disks: what happens to single files, and disks that are full or may not be written."""

import os
import random
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Damage = Callable[[Path, random.Random], None]


def flip(file: Path, chance: random.Random) -> None:
    """One bit, somewhere."""
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def truncate(file: Path, chance: random.Random) -> None:
    """The end is lost."""
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def zero(file: Path, chance: random.Random) -> None:
    """A sector reads as zeros."""
    data = bytearray(file.read_bytes())
    at = chance.randrange(len(data))
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    file.write_bytes(data)


def garble(file: Path, chance: random.Random) -> None:
    """Something else lies there."""
    file.write_bytes(chance.randbytes(file.stat().st_size))


def remove(file: Path, chance: random.Random) -> None:
    """It is gone."""
    file.unlink()


DAMAGES: tuple[Damage, ...] = (flip, truncate, zero, garble, remove)


def flip_blocks(folder: Path, every_bytes: int = 1024) -> int:
    """Damage rows in the SST files of a store, but nothing that is read when it opens; how many bytes.

    An opening reads the end of a file (index, properties), and of the rows the first and the last ones.
    """
    flipped = 0
    for file in folder.glob("*.sst"):
        data = bytearray(file.read_bytes())
        for at in range(len(data) // 4, len(data) // 2, every_bytes):
            data[at] ^= 0xFF
            flipped += 1
        file.write_bytes(data)
    return flipped


def mounts_are_possible() -> bool:
    """Whether this platform lets us mount a small disk in a namespace of our own."""
    try:
        return subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode == 0
    except OSError:
        return False


def on_a_small_disk(command: Sequence[str], folder: Path, size_kb: int) -> tuple[str, ...]:
    """The command, for which a disk of its own is mounted on this folder; it keeps its process id."""
    script = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
    return ("unshare", "-Urm", "sh", "-c", script, f"{size_kb}k", str(folder), *command)


def without_privileges(command: Sequence[str]) -> tuple[str, ...]:
    """The command, bound by the permissions of files even if we are root."""
    if os.geteuid() != 0:
        return tuple(command)
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", *command)


def fill(folder: Path) -> None:
    """Write until the disk of this folder is full."""
    with (folder / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
