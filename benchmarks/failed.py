"""What ends a run of the benchmark with one line."""

__all__ = ["BenchmarkFailed"]


class BenchmarkFailed(Exception):
    """A contender gave no result, or not the one that it was to be measured for."""
