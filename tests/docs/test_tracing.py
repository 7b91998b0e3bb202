"""What docs/tracing.md says is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from app.observability.tracing import export, spans, starting

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()


def test_every_standard_name_that_is_read_is_explained_and_no_other() -> None:
    source = inspect.getsource(starting)
    read = set(re.findall(r'"(OTEL_[A-Z_]+)"', source))
    read |= {f"OTEL_EXPORTER_OTLP_{what}" for what in re.findall(r'_otlp\("([A-Z]+)"\)', source)}
    read |= {f"OTEL_EXPORTER_OTLP_{what}" for what in starting._FILES}
    # Read by the exporter itself.
    read.add("OTEL_EXPORTER_OTLP_HEADERS")
    explained = {name for name in re.findall(r"\bOTEL_[A-Z_]+[A-Z]\b", PAGE) if name != "OTEL_EXPORTER_OTLP_TRACES"}
    explained -= {"OTEL_EXPORTER_OTLP"}
    explained |= {
        f"OTEL_EXPORTER_OTLP_{what}" for what in re.findall(r"`([A-Z]+(?:_[A-Z]+)?)`", PAGE) if "OTEL" not in what
    }
    assert read <= explained
    assert {name for name in explained if name.startswith(("OTEL_BSP", "OTEL_TRACES", "OTEL_SERVICE"))} <= read


def test_the_limits_are_those_of_the_code() -> None:
    assert f"(at most {spans.MAX_LINKS})" in PAGE
    assert f"cut at {spans.MAX_TEXT_CHARS} characters" in PAGE
    assert export.CLOSE_S == 3
    assert "for at most three seconds" in PAGE
    for text in ("(2048)", "(512)", "(5000 ms)"):
        assert text in PAGE
        assert text.strip("()ms ") in inspect.getsource(starting)
