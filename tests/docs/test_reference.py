"""The pages that the code writes are what it writes, and leave nothing out."""

from pathlib import Path

import pytest

from app.reference import PAGES
from app.settings.catalogue import VARIABLES
from app.settings.reference import MEANINGS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_writes(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make reference`"


def test_every_setting_has_a_meaning_and_every_meaning_a_setting() -> None:
    assert MEANINGS.keys() == {".".join(variable.path) for variable in VARIABLES}


def test_a_line_says_default_and_range() -> None:
    page = PAGES["settings.md"]()
    assert "| `PARTITIONS` | `12` | 1 to 1024 |" in page
    assert "| `WEBHOOKS__ALLOW_HTTP` | `false` | true or false |" in page
    assert "| `POLICY__DIALECT` | `vault` | `vault` `authzen` |" in page
    assert "| `WEBHOOKS__MAX_RETRIES` | - | 1 to 50 |" in page


def test_every_metric_is_on_its_page() -> None:
    page = PAGES["metrics.md"]()
    assert page.count("| `vault_stream_") > 25
    assert "| `vault_stream_deliveries_total` | counter | `status` |" in page
