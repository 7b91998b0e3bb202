"""Takes a fault of the disk, the network or the broker for the record's own."""

from app.engine import runner


def apply() -> None:
    runner.of_the_surroundings = lambda _: False
