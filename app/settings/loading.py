"""From raw text to checked `Settings`, or one line for each thing that is wrong."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from app.settings import sources
from app.settings.catalogue import BY_NAME, BY_PATH, PREFIX, Variable
from app.settings.checks import problems
from app.settings.model import Settings
from app.settings.sources import Raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

_INSTANCE_FILE: Final = "instance-id"
_INSTANCE: Final = f"{PREFIX}INSTANCE_ID"
_SECRETS: Final = f"{PREFIX}SECRETS_DIR"


class SettingsError(ValueError):
    """Settings that cannot be used; the text is one line a problem.

    Attributes:
        problems: The lines, each with the variable and the fix, none with a value.
        unread: The system did not let a secret be read: the next try may.
    """

    def __init__(self, problems: Sequence[str], unread: OSError | None = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.unread = unread


def load_settings(environ: Mapping[str, str] = os.environ, *, dotenv: Path = Path(".env")) -> Settings:
    """Read and check all settings (contracts 8.2).

    The environment goes before `.env`, and that before the folder `SECRETS_DIR`. An empty value is the same as unset.

    Args:
        environ: The environment of the process.
        dotenv: A `.env` file, which need not exist.

    Returns:
        The settings, with the origin of each in `sources`.

    Raises:
        SettingsError: Unknown names, wrong types, values out of range, and combinations that are refused; all of them
            at once.
    """
    lines: list[str] = []
    given, unread = _gather(environ, dotenv, lines)
    lines.extend(_unknown(name, given.pop(name)) for name in sorted(given.keys() - BY_NAME.keys()))
    _add_instance_id(given)
    settings, invalid = _validate(given)
    lines += [f"{name}: {fix}{_origin(given.get(name))}" for name, fix in invalid]
    wrong = {name.removeprefix(PREFIX) for name, _ in invalid}
    for problem in problems(settings, {name.removeprefix(PREFIX) for name in given}):
        # What compares with a value that is wrong itself says nothing.
        if wrong.isdisjoint(problem.names):
            name = f"{PREFIX}{problem.names[0]}"
            lines.append(f"{name}: {problem.fix}{_origin(given.get(name))}")
    if lines:
        raise SettingsError(lines, unread)
    return settings


def keep_instance_id(settings: Settings) -> None:
    """Write the worker's name into `data_dir`, so that the next start has the same one.

    To be called once the folder is locked. A name that was configured is not written.

    Raises:
        OSError: The folder cannot be written.
    """
    if _INSTANCE in settings.sources:
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    file = settings.data_dir / _INSTANCE_FILE
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{settings.instance_id}\n", encoding="utf-8")
    fresh.replace(file)


def _gather(environ: Mapping[str, str], dotenv: Path, lines: list[str]) -> tuple[dict[str, Raw], OSError | None]:
    given = sources.from_environment(environ)
    try:
        given = sources.from_dotenv(dotenv) | given
    except (OSError, UnicodeDecodeError) as error:
        lines.append(f"{dotenv}: cannot be read as UTF-8 ({_reason(error)}); correct or remove it")
    except sources.DoubledError as error:
        lines.append(f"{error}: {dotenv} has more than one line for it, of which the last would win; keep one of them")
    folder = given.get(_SECRETS)
    if folder is None or not Path(folder.text).is_dir():
        return given, None  # a folder that is not there is an error of its field
    try:
        found = sources.from_folder(Path(folder.text))
    except (OSError, UnicodeDecodeError) as error:
        lines.append(f"{_SECRETS}: {_reason(error)}; each file must be readable UTF-8, one for a setting")
        # Without a number it is ours: two files for one setting, which only a change mends.
        return given, error if isinstance(error, OSError) and error.errno is not None else None
    if _SECRETS in found:
        lines.append(f"{_SECRETS}: cannot come from the folder that it names; remove that file")
        del found[_SECRETS]
    return found | given, None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"  # its own text would show a byte of a secret
    return error.strerror or str(error)


def _add_instance_id(given: dict[str, Raw]) -> None:
    """The name that an earlier start kept, unless one is configured."""
    if _INSTANCE in given:
        return
    folder = given.get(f"{PREFIX}DATA_DIR")
    file = (Path(folder.text) if folder else Settings.model_fields["data_dir"].default) / _INSTANCE_FILE
    try:
        name = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return  # none was kept: a new one is made
    if name:
        given[_INSTANCE] = Raw(name, sources.DATA_DIR)


def _validate(given: Mapping[str, Raw]) -> tuple[Settings, list[tuple[str, str]]]:
    """The settings, with the default in place of each invalid one, and what is wrong by variable."""
    origins = {name: raw.origin for name, raw in given.items()}
    try:
        return Settings.model_validate(_nested(given) | {"sources": origins}), []
    except ValidationError as error:
        invalid = [_named(details) for details in error.errors(include_url=False, include_input=False)]
    wrong = {name for name, _ in invalid}
    rest = {name: raw for name, raw in given.items() if name not in wrong}
    return _validate(rest)[0], invalid


def _nested(given: Mapping[str, Raw]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, raw in given.items():
        *groups, field = BY_NAME[name].path
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[field] = raw.text
    return tree


def _named(details: ErrorDetails) -> tuple[str, str]:
    """The variable that an error is about, and what it must be."""
    place = details["loc"]
    variable = _variable_at(place)
    within = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place[len(variable.path) :])
    cause = details.get("ctx", {}).get("error")
    must = str(cause) if cause is not None else details["msg"]
    must = must.replace("Input should", "must").replace("Field required", "must be there")
    return variable.name, f"{within} {must}".strip()


def _variable_at(place: tuple[int | str, ...]) -> Variable:
    for length in range(len(place), 0, -1):
        variable = BY_PATH.get(tuple(str(step) for step in place[:length]))
        if variable is not None:
            return variable
    raise LookupError(f"no variable at {place}")  # only a model whose fields changed under us could get here


def _origin(raw: Raw | None) -> str:
    return "" if raw is None or raw.origin == sources.ENVIRONMENT else f" (from {raw.origin})"


def _unknown(name: str, raw: Raw) -> str:
    # Compared without the prefix, which would make any two names look alike.
    known = [variable.removeprefix(PREFIX) for variable in BY_NAME]
    asked = name.removeprefix(PREFIX)
    # KAFKA__BROKERS: the right word in the wrong group.
    last = [variable for variable in known if variable == asked.rpartition("__")[2]]
    close = last or difflib.get_close_matches(asked, known, n=1, cutoff=0.7)
    fix = f"did you mean {PREFIX}{close[0]}?" if close else "unset it (`vault-stream config` lists those that exist)"
    return f"{name}: no such setting; {fix}{_origin(raw)}"
