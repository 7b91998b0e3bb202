"""`vault-stream positions` knows every agent that keeps positions; what it does is tested with a broker."""

from __future__ import annotations

from app.cli.positions import _homes
from app.topics import Topics
from tests.support.rebuild import AGENTS


def test_every_agent_has_a_home_that_can_be_shown_and_reset() -> None:
    homes = {home.agent: home.table for home in _homes(Topics("vault", "vs"))}
    assert homes == {agent: tables[0].name for agent, tables in AGENTS.items()}
