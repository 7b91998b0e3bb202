"""What tests of commands have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scripted_api import Api, listening_api


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """The API that the settings name; its admin token is `hunter2`."""
    scripted = Api()
    with listening_api(scripted) as url:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("VAULT_STREAM_API__URL", url)
        monkeypatch.setenv("VAULT_STREAM_API__ADMIN_TOKEN", "hunter2")
        yield scripted
