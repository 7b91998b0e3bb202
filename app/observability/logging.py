"""Structured logs: one line a record, safe to read by machines and in a terminal.

`configure_logging` sets up the root logger, so that every `logging.getLogger("app.…")` and every library ends in the
same place and form. Fields of an event are passed the standard way, `log.info("sealed", extra={"batch_id": …})`.

The rules that hold for each line, in each form (contracts section 7):

- the reserved names are ours: a field of the same name appears as `field.<name>`;
- values under names of secrets, and values of secret types, are never written;
- no control character reaches the output, so that a value cannot forge a line or drive a terminal.

`LogError` is the one error: a level, form or output that does not exist, or a file that cannot be opened.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson

from app.observability.redaction import encodable, escaped, plain_fields, redacted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = [
    "REQUEST_ID",
    "SPAN_ID",
    "TRACE_ID",
    "USER_ID",
    "LogError",
    "LogOutput",
    "RateLimit",
    "configure_logging",
    "parse_levels",
    "parse_output",
]

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that the running task serves."""
USER_ID: ContextVar[str | None] = ContextVar("user_id", default=None)
"""The role, or the name, of the token behind that request."""
TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
SPAN_ID: ContextVar[str | None] = ContextVar("span_id", default=None)

_CONTEXT: Final = {"request_id": REQUEST_ID, "trace_id": TRACE_ID, "span_id": SPAN_ID, "user_id": USER_ID}
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": logging.CRITICAL + 10,
}
_RESERVED: Final = frozenset(
    {"timestamp", "level", "message", "target", "thread", "file", "line", "exception", *_CONTEXT}
)
# Everything that the standard library puts on a record itself; the rest came through `extra`.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SOURCE_ROOT: Final = f"{Path(__file__).parents[2]}/"

_AIOKAFKA_LINES_PER_S: Final = 1
"""aiokafka logs some hundred lines a second while a broker is away; what it means, the engine says itself."""
_QUIET: Final = ("aiokafka", "faust", "mode")
"""They tell of each start of each part. Their warnings are shown, and all of it where LOG__LEVEL names one."""
_MODE_FILE: Final = "/mode/services.py"

_leveled: set[str] = set()
"""The targets whose level is set, to be given back when the levels change."""


class LogError(ValueError):
    """A log setting that cannot be used; the text says what it must be."""


@dataclass(frozen=True, slots=True)
class LogOutput:
    """Where lines go: to standard output, to a file, or both."""

    stdout: bool
    file: Path | None


def parse_levels(text: str) -> dict[str, int]:
    """Read `info,app.engine=debug`: a level for all targets and levels for some.

    Returns:
        Levels by target; the one for all stands under `""` and is `info` when not given.

    Raises:
        LogError: An unknown level, an empty target, or two levels for one target.
    """
    levels: dict[str, int] = {}
    for part in text.split(","):
        target, equals, name = part.strip().rpartition("=")
        target = target.strip()
        level = _LEVELS.get(name.strip().lower())
        if level is None or (equals and not target):
            raise LogError(f"must be one of {', '.join(_LEVELS)}, also per target as in info,app.engine=debug")
        if target in levels:
            raise LogError(f"must give one level only {f'for {target}' if target else 'without a target'}")
        levels[target] = level
    levels.setdefault("", logging.INFO)
    return levels


def parse_output(text: str) -> LogOutput:
    """Read `stdout`, `file:PATH` or `both:PATH`.

    Raises:
        LogError: Anything else.
    """
    kind, colon, path = text.partition(":")
    if text == "stdout":
        return LogOutput(stdout=True, file=None)
    if kind in {"file", "both"} and colon and path:
        return LogOutput(stdout=kind == "both", file=Path(path))
    raise LogError("must be stdout, file:PATH or both:PATH")


def configure_logging(form: str, level: str, output: str, *, stream: TextIO | None = None) -> None:
    """Send the records of the whole process to `output`, replacing what was set up before.

    Args:
        form: `json`, `pretty` or `compact`.
        level: As in `parse_levels`.
        output: As in `parse_output`.
        stream: What stands for standard output.

    Raises:
        LogError: A value that does not exist, or a file that cannot be opened; nothing is changed then.
    """
    make = _FORMATTERS.get(form)
    if make is None:
        raise LogError(f"log format must be one of {', '.join(_FORMATTERS)}")
    levels = dict.fromkeys(_QUIET, logging.WARNING) | parse_levels(level)
    where = parse_output(output)
    handler = _handler(make(), where, stream)
    handler.addFilter(RateLimit("aiokafka", _AIOKAFKA_LINES_PER_S))
    if "mode" not in parse_levels(level):
        handler.addFilter(_not_of_mode)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if type(old) is type(handler):
            old.flush()
            old.close()
    root.addHandler(handler)
    if not where.stdout:
        root.addHandler(_last_words(make()))
    for target in _leveled - levels.keys():
        logging.getLogger(target).setLevel(logging.NOTSET)
    for target, value in levels.items():
        logging.getLogger(target).setLevel(value)
    _leveled.update(levels)
    logging.captureWarnings(capture=True)


def _handler(formatter: logging.Formatter, where: LogOutput, stream: TextIO | None) -> logging.Handler:
    # With threads and metrics, which a command line that only reads settings does without.
    from app.observability.log_output import FileTarget, LineHandler, StreamTarget, Target  # noqa: PLC0415

    targets: list[Target] = [StreamTarget(stream)] if where.stdout else []
    if where.file is not None:
        try:
            targets.append(FileTarget(where.file))
        except OSError as error:
            raise LogError(
                f"cannot write the log file {where.file}: {error.strerror}; choose another LOG__OUTPUT"
            ) from error
        _reopen_at_hangup()
    return LineHandler(formatter, targets)


def _last_words(formatter: logging.Formatter) -> logging.Handler:
    """Where all goes to a file: why the process ends is said to whoever started it, too."""
    from app.observability.log_output import LineHandler, StreamTarget  # noqa: PLC0415  # as above

    handler = LineHandler(formatter, [StreamTarget(sys.stderr)])
    handler.setLevel(logging.CRITICAL)
    return handler


def _reopen_at_hangup() -> None:
    """SIGHUP opens the log file again, as programs that rotate logs ask for it; only where there is a file.

    Without one it ends the process as it always did: a terminal that closes takes its worker along.
    """

    def reopen(_number: int, _frame: FrameType | None) -> None:
        for handler in logging.getLogger().handlers:
            if (renew := getattr(handler, "renew", None)) is not None:
                renew()

    with contextlib.suppress(ValueError):  # not in the main thread: whoever set it up there decides
        signal.signal(signal.SIGHUP, reopen)


def _not_of_mode(record: logging.LogRecord) -> bool:
    """Our services are mode's, and it tells of each start and stop under the target of the service."""
    return record.levelno >= logging.WARNING or not record.pathname.endswith(_MODE_FILE)


class RateLimit(logging.Filter):
    """Lets at most so many lines a second of one target and its children through.

    The first line that passes after some were held back carries their number as `suppressed`. To be put on a handler:
    on a logger it would not see the records of child loggers.
    """

    def __init__(self, target: str, lines_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._target = target
        self._prefix = f"{target}."
        self._lines_per_s = lines_per_s
        self._clock = clock
        self._second_began = float("-inf")
        self._passed = 0
        self._suppressed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.name != self._target and not record.name.startswith(self._prefix):
            return True
        now = self._clock()
        if now - self._second_began >= 1:
            self._second_began, self._passed = now, 0
        if self._passed >= self._lines_per_s:
            self._suppressed += 1
            return False
        self._passed += 1
        if self._suppressed:
            record.suppressed = self._suppressed
            self._suppressed = 0
        return True


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    given = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    return {f"field.{name}" if name in _RESERVED else name: value for name, value in plain_fields(given).items()}


def _timestamp(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"


def _message(record: logging.LogRecord) -> str:
    try:
        return redacted(record.getMessage())
    except (TypeError, ValueError):  # arguments that do not fit the text must not lose the line
        return redacted(f"{record.msg} {record.args}")


def _traceback(record: logging.LogRecord, formatter: logging.Formatter) -> str | None:
    if record.exc_info and record.exc_info[0] is not None:
        return redacted(formatter.formatException(record.exc_info))
    return None


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "level": record.levelname,
            "message": _message(record),
            "target": record.name,
            "thread": record.threadName,
            "file": _file(record),
            "line": record.lineno,
        }
        for name, variable in _CONTEXT.items():
            value = variable.get()
            if value is not None:
                entry[name] = value
        entry.update(_extras(record))
        traceback = _traceback(record, self)
        if traceback is not None:
            entry["exception"] = traceback
        text = orjson.dumps(encodable(entry), option=orjson.OPT_NON_STR_KEYS).decode()
        # orjson escapes C0 only; the others occur inside strings only, where their JSON escape means the same.
        return escaped(text)


class _CompactFormatter(logging.Formatter):
    """One line of text: time, level, target, message, fields, place."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_head(record), *_shown_fields(record)]
        if (traceback := _traceback(record, self)) is not None:
            parts.append(f"exception={_quoted(traceback.splitlines()[-1])}")
        parts.append(f"thread={_quoted(record.threadName)} file={_quoted(_file(record))} line={record.lineno}")
        return " ".join(escaped(part) for part in parts)


class _PrettyFormatter(logging.Formatter):
    """For a person: the line, then each field, the place, and each line of a traceback on its own, indented."""

    def format(self, record: logging.LogRecord) -> str:
        place = f"at {_file(record)}:{record.lineno}, {record.threadName}"
        lines = [_head(record), *(f"    {field}" for field in _shown_fields(record)), f"    {place}"]
        if (traceback := _traceback(record, self)) is not None:
            lines += [f"      {line}" for line in traceback.splitlines()]
        return "\n".join(escaped(line) for line in lines)


def _head(record: logging.LogRecord) -> str:
    return f"{_timestamp(record)} {record.levelname:<7} {record.name}: {_message(record)}"


def _file(record: logging.LogRecord) -> str:
    return record.pathname.removeprefix(_SOURCE_ROOT)


def _shown_fields(record: logging.LogRecord) -> list[str]:
    context = {name: variable.get() for name, variable in _CONTEXT.items() if variable.get() is not None}
    return [f"{_quoted(name)}={_quoted(value)}" for name, value in {**context, **_extras(record)}.items()]


def _quoted(value: Any) -> str:
    """A value in its JSON form where it could be taken for two, or for a field of its own."""
    text = str(value)
    plain = text and not any(character.isspace() or character in '="' for character in text)
    return text if plain else orjson.dumps(encodable(text)).decode()


_FORMATTERS: Final[dict[str, Callable[[], logging.Formatter]]] = {
    "json": _JsonFormatter,
    "pretty": _PrettyFormatter,
    "compact": _CompactFormatter,
}
