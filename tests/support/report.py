"""What a proof saw, as Markdown: `make prove` prints it, docs/proof.md keeps it."""

from collections.abc import Mapping


def report(title: str, figures: Mapping[str, object]) -> None:
    """Prints one section."""
    lines = [f"\n## {title}\n", "| what | seen |", "|---|---|"]
    lines += [f"| {what} | {seen} |" for what, seen in figures.items()]
    print("\n".join(lines))  # noqa: T201  # the report is for whoever runs the proofs
