"""What happens to files on a bad disk. Every function changes one file and nothing else."""

import random
from collections.abc import Callable
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
    """Damage most data blocks of the SST files of a store, nothing that is read when it opens; how many bytes.

    The last part of an SST file is its index, properties and footer, which an opening reads.
    """
    flipped = 0
    for file in folder.glob("*.sst"):
        data = bytearray(file.read_bytes())
        for at in range(16, int(len(data) * 0.7), every_bytes):
            data[at] ^= 0xFF
            flipped += 1
        file.write_bytes(data)
    return flipped
