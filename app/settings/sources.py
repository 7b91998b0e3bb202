"""Where settings come from: the environment, a `.env` file, a folder of secrets; each as raw text by variable."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from app.settings.catalogue import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT: Final = "environment"
DOTENV: Final = ".env"
SECRETS_DIR: Final = "secrets dir"
DATA_DIR: Final = "data dir"
DEFAULT: Final = "default"

_MAX_FILE_BYTES: Final = 1024 * 1024
# What Kubernetes puts into every container of a namespace that has a Service called vault-stream.
_KUBERNETES = re.compile(
    rf"{PREFIX}(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)\Z"
)


@dataclass(frozen=True, slots=True)
class Raw:
    """The text of one variable, and the source that gave it."""

    text: str
    origin: str


class DoubledError(ValueError):
    """A file gives a variable more than once; the text is its name."""


def from_environment(environ: Mapping[str, str]) -> dict[str, Raw]:
    """The variables of the process; an empty one counts as unset, those that Kubernetes injects are not ours."""
    return {
        name: Raw(text, ENVIRONMENT)
        for name, text in environ.items()
        if name.startswith(PREFIX) and text and not _KUBERNETES.match(name)
    }


def from_dotenv(path: Path) -> dict[str, Raw]:
    """The variables of a `.env` file, none if there is no such file; those of other programs are left alone.

    Nothing is interpolated: a `$` in a password stays what it is.

    Raises:
        OSError: The file is there and cannot be read.
        UnicodeDecodeError: It is no UTF-8.
        DoubledError: Two of its lines are for one variable. The last would win, and a key in the other be lost.
    """
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    names = Counter(binding.key for binding in parse_stream(StringIO(text)) if binding.key is not None)
    doubled = [name for name, times in names.items() if times > 1 and name.startswith(PREFIX)]
    if doubled:
        raise DoubledError(doubled[0])
    values = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: Raw(text, DOTENV) for name, text in values.items() if name.startswith(PREFIX) and text}


def from_folder(folder: Path) -> dict[str, Raw]:
    """One variable a file, named after it in any case, with or without the prefix; the final line break is dropped.

    Hidden entries (the bookkeeping of a Kubernetes volume) and folders are skipped.

    Raises:
        OSError: The folder or a file cannot be read, or two files name one variable.
        UnicodeDecodeError: A file is no UTF-8.
    """
    found: dict[str, Raw] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        name = PREFIX + file.name.upper().removeprefix(PREFIX)
        if name in found:
            raise OSError(f"two files for {name}; remove one")
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_MAX_FILE_BYTES).rstrip("\r\n")
        if text:
            found[name] = Raw(text, SECRETS_DIR)
    return found
