"""The exact versions of what we use private names of: with others it may start and lose records, so it does not."""

from __future__ import annotations

from importlib import metadata

from app.engine.errors import StartRefused

__all__ = ["PINNED", "check_versions"]

# As in pyproject.toml. What was read in these versions, `tests/unit/engine/test_private_names.py` asks for.
PINNED = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0", "rocksdict": "0.3.29"}


def check_versions() -> None:
    """Compare what is installed with what is pinned.

    Raises:
        StartRefused: Names what is installed, what is wanted, and the command that installs it.
    """
    wrong = [
        f"{name} {installed} (wanted: {wanted})"
        for name, wanted in PINNED.items()
        if (installed := _installed(name)) != wanted
    ]
    if wrong:
        fix = " ".join(f"{name}=={wanted}" for name, wanted in PINNED.items())
        raise StartRefused(
            f"installed: {', '.join(wrong)}. The engine relies on internals of exactly the wanted versions;"
            f" install them with: pip install {fix}"
        )


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is missing"
