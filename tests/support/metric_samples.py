"""What the metrics of this process say, and what has been counted since."""

from collections.abc import Mapping
from typing import Final

from app.observability import metrics

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def scraped() -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
    }


class Change:
    """What was counted since it was made."""

    def __init__(self) -> None:
        self._before = scraped()

    def of(self, name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return scraped().get(key, 0.0) - self._before.get(key, 0.0)


def value(name: str, **labels: str) -> float:
    found = metrics.REGISTRY.get_sample_value(name, labels)
    assert found is not None, f"{name} {labels} has no sample"
    return found
