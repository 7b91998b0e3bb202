"""The registry's part of a worker, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.registry import RegistryOptions, RegistryPaths, registry_agent
from app.integrations.registry_sync import SyncMode
from app.web.registry import RegistryApi

if TYPE_CHECKING:
    from app.engine import Agent
    from app.integrations.upstream import Upstream
    from app.main import Program
    from app.settings import Settings
    from app.topics import Topics
    from tables.datasets import DatasetReaders

__all__ = ["registry_api", "registry_of"]


def registry_of(settings: Settings, topics: Topics, registry: Upstream | None, readers: DatasetReaders) -> Agent:
    """The agent of these settings."""
    chosen = settings.registry
    options = RegistryOptions(
        paths=RegistryPaths(chosen.path_datasets, chosen.path_dataset, chosen.path_model_datasets),
        mode=SyncMode(chosen.sync_mode),
        interval_s=chosen.sync_interval_s,
        numbers=settings.partitions,
    )
    return registry_agent(topics, registry, options, readers=readers)


def registry_api(program: Program) -> RegistryApi:
    """What its routes work with."""
    settings, engine = program.settings, program.engine
    return RegistryApi(
        readers=program.datasets,
        ownership=engine.ownership,
        forwarder=program.forwarder,
        outputs=engine.outputs,
        datasets=program.topics.registry_datasets,
        source=f"/vault-stream/{settings.app_id}",
        mode=SyncMode(settings.registry.sync_mode),
        off=program.upstreams["registry"] is None,
        now_ms=engine.clock.now_ms,
    )
