import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mode import Service
from pydantic import SecretStr

from app.observability.logging import (
    REQUEST_ID,
    SPAN_ID,
    TRACE_ID,
    USER_ID,
    LogError,
    LogOutput,
    RateLimit,
    configure_logging,
    parse_levels,
    parse_output,
)
from tests.support.log_restored import logging_restored

LOG = logging.getLogger("app.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with logging_restored():
        yield


class Shown(io.StringIO):
    """What was logged: lines are written by a thread."""

    def getvalue(self) -> str:
        for handler in logging.getLogger().handlers:
            handler.flush()
        return super().getvalue()


def configured(form: str = "json", level: str = "info") -> io.StringIO:
    stream = Shown()
    configure_logging(form, level, "stdout", stream=stream)
    return stream


def fail(text: str) -> None:
    raise ValueError(text)


def entry(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    value: dict[str, Any] = json.loads(line)
    return value


def test_a_json_line_has_the_fields_of_the_contract() -> None:
    stream = configured()
    LOG.info("sealed %d", 3, extra={"batch_id": "b-1"})
    line = entry(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert isinstance(line.pop("line"), int)
    assert line == {
        "level": "INFO",
        "message": "sealed 3",
        "target": "app.test",
        "thread": "MainThread",
        "file": "tests/unit/observability/test_logging.py",
        "batch_id": "b-1",
    }


def test_the_context_of_a_request_is_on_each_line() -> None:
    stream = configured()
    tokens = REQUEST_ID.set("r-1"), USER_ID.set("viewer")
    LOG.info("x")
    REQUEST_ID.reset(tokens[0])
    USER_ID.reset(tokens[1])
    line = entry(stream)
    assert (line["request_id"], line["user_id"]) == ("r-1", "viewer")


def test_reserved_names_cannot_be_overwritten() -> None:
    stream = configured()
    LOG.info("x", extra={"level": "none", "timestamp": "never", "request_id": "forged"})
    line = entry(stream)
    assert line["level"] == "INFO"
    assert line["timestamp"] != "never"
    assert "request_id" not in line
    assert line["field.request_id"] == "forged"


HOSTILE = "a\nforged\x1b[2J\x1b]0;title\x07\x9b\x85\u2028\u2029\u202e\u2066\u200f\u061c\x00\r\tb"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("form", ["json", "compact", "pretty"])
def test_no_control_character_reaches_the_output(form: str) -> None:
    stream = configured(form)
    REQUEST_ID.set(HOSTILE)
    try:
        fail(HOSTILE)
    except ValueError:
        logging.getLogger(f"app.{HOSTILE}").exception("m %s", HOSTILE, extra={"value": HOSTILE, HOSTILE: [HOSTILE]})
    finally:
        REQUEST_ID.set(None)
    text = stream.getvalue()
    assert text.count("forged") >= 5
    assert not CONTROL.search(text)
    assert not any(line.startswith("forged") for line in text.splitlines())
    assert len(text.splitlines()) == 1 or form == "pretty"


@pytest.mark.parametrize("form", ["compact", "pretty"])
def test_a_value_cannot_pass_for_another_field(form: str) -> None:
    stream = configured(form)
    LOG.info("x", extra={"name_of_it": "a user_id=admin", "quote": 'b" user_id=admin', "user_id": "admin", "none": ""})
    text = stream.getvalue()
    assert 'name_of_it="a user_id=admin"' in text
    assert r'quote="b\" user_id=admin"' in text
    assert "field.user_id=admin" in text
    assert 'none=""' in text


@pytest.mark.parametrize("form", ["compact", "pretty"])
def test_the_forms_for_people_have_the_fields_of_the_contract_too(form: str) -> None:
    stream = configured(form)
    variables = {REQUEST_ID: "r-1", TRACE_ID: "t-1", SPAN_ID: "s-1", USER_ID: "viewer"}
    tokens = [(variable, variable.set(value)) for variable, value in variables.items()]
    LOG.warning("sealed", extra={"batch_id": "b-1"})
    for variable, token in tokens:
        variable.reset(token)
    text = stream.getvalue()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING app.test: sealed", text)
    for shown in ("request_id=r-1", "trace_id=t-1", "span_id=s-1", "user_id=viewer", "batch_id=b-1", "MainThread"):
        assert shown in text
    assert re.search(r"tests/unit/observability/test_logging\.py(:| line=)\d+", text)


@pytest.mark.parametrize("form", ["json", "compact", "pretty"])
def test_secrets_are_redacted_by_key_by_type_and_by_form(form: str) -> None:
    stream = configured(form)
    LOG.info(
        "sent Authorization: Bearer hunter2abc to https://user:hunter2@host with whsec_hunter2AAAA",
        extra={
            "password": "hunter2",
            "nested": {"X-Api-Key": "hunter2", "deep": [{"client_secret": "hunter2"}]},
            "typed": SecretStr("hunter2"),
            "raw": b"hunter2",
        },
    )
    assert "hunter2" not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


def test_a_secret_in_an_exception_is_redacted() -> None:
    stream = configured()
    try:
        fail("bad key whsec_hunter2AAAA")
    except ValueError:
        LOG.exception("failed")
    line = entry(stream)
    assert "hunter2" not in json.dumps(line)
    assert "ValueError: bad key whsec_[redacted]" in line["exception"]


def test_values_that_are_no_json_do_not_lose_the_line() -> None:
    stream = configured()
    LOG.info("x", extra={"path": Path("/a"), "big": 2**70, "nan": float("nan"), "lone": "\ud800", "set": {1}})
    line = entry(stream)
    assert (line["path"], line["big"], line["nan"], line["set"]) == ("/a", str(2**70), None, [1])


def test_arguments_that_do_not_fit_do_not_lose_the_line() -> None:
    stream = configured()
    LOG.info("%d", "x")
    assert entry(stream)["message"].startswith("%d")


class Unshowable:
    def __str__(self) -> str:
        raise KeyError("hunter2")

    __repr__ = __str__


@pytest.mark.parametrize("form", ["json", "compact", "pretty"])
def test_what_cannot_be_shown_says_where_and_disturbs_nobody(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    stream = configured(form)
    LOG.info("%s", Unshowable(), extra={"password": "hunter2"})
    LOG.info("next", extra={"value": Unshowable()})
    assert stream.getvalue().count("a log record cannot be shown") == 2
    assert "hunter2" not in stream.getvalue() + capsys.readouterr().err


def test_values_are_bounded() -> None:
    stream = configured()
    nested: dict[str, Any] = {}
    nested["self"] = nested
    LOG.info("x" * 100_000, extra={"many": list(range(10_000)), "nested": nested})
    assert len(stream.getvalue()) < 20_000


def test_compact_is_one_line_and_pretty_shows_the_traceback() -> None:
    for form, lines in (("compact", 1), ("pretty", 4)):
        stream = configured(form)
        try:
            fail("why")
        except ValueError:
            LOG.exception("failed", extra={"a": 1})
        shown = stream.getvalue().splitlines()
        assert "app.test: failed" in shown[0]
        assert "ValueError: why" in stream.getvalue()
        assert len(shown) == 1 if lines == 1 else len(shown) > lines


def test_levels_can_be_set_per_target() -> None:
    stream = configured(level="warning,app.engine=debug")
    logging.getLogger("app.web").info("hidden")
    logging.getLogger("app.engine.runner").debug("shown")
    assert entry(stream)["message"] == "shown"


def test_the_levels_of_an_earlier_set_up_are_taken_back() -> None:
    configured(level="info,app.engine=debug")
    stream = configured(level="info")
    logging.getLogger("app.engine").debug("hidden")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("text", ["loud", "info,=debug", "info,debug", "a=info,a=debug", "", "info,,"])
def test_a_level_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(LogError, match="must"):
        parse_levels(text)


def test_the_level_for_all_is_info_unless_said() -> None:
    assert parse_levels("app.web=off")[""] == logging.INFO


def test_an_output_is_stdout_a_file_or_both() -> None:
    assert parse_output("stdout") == LogOutput(stdout=True, file=None)
    assert parse_output("file:/x/y") == LogOutput(stdout=False, file=Path("/x/y"))
    assert parse_output("both:y") == LogOutput(stdout=True, file=Path("y"))
    for text in ("file:", "syslog", "file", "stdout:x"):
        with pytest.raises(LogError, match="file:PATH"):
            parse_output(text)


def test_both_writes_the_same_line_twice(tmp_path: Path) -> None:
    stream = Shown()
    file = tmp_path / "logs" / "worker.log"
    configure_logging("json", "info", f"both:{file}", stream=stream)
    LOG.info("x")
    assert stream.getvalue() == file.read_text() != ""


def test_a_file_that_cannot_be_opened_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    stream = configured()
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot write the log file"):
        configure_logging("json", "info", f"file:{tmp_path}/file/worker.log")
    LOG.info("still here")
    assert entry(stream)["message"] == "still here"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(LogError, match="json, pretty, compact"):
        configure_logging("xml", "info", "stdout")


def test_the_rate_limit_lets_five_lines_a_second_through_and_counts_the_rest() -> None:
    now = 100.0
    limit = RateLimit("aiokafka", 5, clock=lambda: now)

    def record(name: str) -> logging.LogRecord:
        return logging.LogRecord(name, logging.ERROR, "", 0, "broker away", None, None)

    assert [limit.filter(record("aiokafka.client")) for _ in range(8)] == [True] * 5 + [False] * 3
    assert limit.filter(record("aiokafkaesque"))
    now = 101.0
    next_one = record("aiokafka")
    assert limit.filter(next_one)
    assert next_one.__dict__["suppressed"] == 3


def test_the_rate_limit_is_in_force_for_the_kafka_client() -> None:
    stream = configured()
    for _ in range(50):
        logging.getLogger("aiokafka.consumer.fetcher").error("away")
    assert 1 <= len(stream.getvalue().splitlines()) <= 2


def test_what_is_below_us_is_quiet_unless_it_is_named() -> None:
    stream = configured()
    logging.getLogger("faust.app").info("Starting...")
    assert not stream.getvalue()

    stream = configured(level="info,faust=info")
    logging.getLogger("faust.app").info("Starting...")
    assert "Starting..." in stream.getvalue()


class _Part(Service):
    """One of ours, which mode starts and stops."""

    logger = logging.getLogger("app.engine.part")


async def test_the_starts_and_stops_of_parts_are_quiet_unless_mode_is_named() -> None:
    for level, shown in (("info", False), ("info,mode=info", True)):
        stream = configured(level=level)
        async with _Part():
            pass
        assert ("Starting..." in stream.getvalue()) is shown
    logging.getLogger("app.engine.part").info("Starting...")
    assert stream.getvalue().count("app.engine.part") > 1
