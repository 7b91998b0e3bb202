"""What the page about the log says is what the log does."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.observability import log_output
from app.observability.logging import (
    REQUEST_ID,
    SPAN_ID,
    TRACE_ID,
    USER_ID,
    configure_logging,
    parse_levels,
    parse_output,
)
from tests.support.log_restored import logging_restored

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with logging_restored():
        yield


def cell(name: str) -> list[str]:
    """What stands in backquotes behind the name of a setting."""
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", PAGE, re.MULTILINE)
    return re.findall(r"`([^`]+)`", row)


def test_the_fields_of_the_table_are_those_of_a_line() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", "stdout", stream=stream)
    tokens = [(variable, variable.set("x")) for variable in (REQUEST_ID, TRACE_ID, SPAN_ID, USER_ID)]
    try:
        raise ValueError("why")  # noqa: TRY301
    except ValueError:
        logging.getLogger("app.test").exception("failed", extra={"level": "none", "token": "x"})
    for variable, token in tokens:
        variable.reset(token)
    logging.getLogger().handlers[0].flush()
    line = json.loads(stream.getvalue())
    table = PAGE.split("## Fields")[1].split("Everything else")[0]
    named = {
        field for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for field in re.findall(r"`(\w+)`", row)
    }
    assert named == line.keys() - {"field.level", "token"}
    assert line["token"] == "[redacted]"


def test_the_settings_of_the_page_are_taken() -> None:
    for form in cell("LOG__FORMAT"):
        configure_logging(form, "info", "stdout", stream=io.StringIO())
    for level in cell("LOG__LEVEL"):
        parse_levels(level)
    for output in cell("LOG__OUTPUT"):
        parse_output(output)


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    assert f"a queue of {log_output.QUEUE_BYTES >> 20} MiB" in PAGE
    assert log_output.RETRY_MAX_S == log_output.FLUSH_S == 2
