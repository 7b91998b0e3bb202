"""The Faust application that hosts the engine: group, agents and stats page are Faust's, the rest is ours."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import faust
from faust.tables import TableManager

from app.engine.agent import Agent
from app.engine.consumer import ConsumerApp, SliceSchema, SliceTransport
from app.engine.engine import Engine
from app.engine.errors import StartRefused
from app.engine.fetching import POLL_RECORDS

__all__ = ["EngineApp", "create_app"]

log = logging.getLogger("app.engine.app")

Hook = Callable[[], Awaitable[None]]

# Revoke takes at most 8 s, an opening joins at once; the group waits this long for the slowest member.
REBALANCE_TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 30.0
# Members hear of a rebalance by the answer to a heartbeat, and nobody works on until the last of them has joined.
HEARTBEATS_A_SESSION = 20
# aiokafka reads ahead for every assigned partition, with room or not: 29 topics of 12 partitions are 170 MiB at most.
FETCH_BYTES = 512 << 10


class NoTables(TableManager):  # type: ignore[misc]  # Faust ships no types
    """Faust's tables, of which we have none."""

    async def sleep(self, n: Any) -> None:
        """It sleeps in one place: a second before the join, for tables that may still be registered."""
        del n
        await asyncio.sleep(0)


class EngineApp(ConsumerApp):
    """Start and stop in the one order that loses nothing.

    Attributes:
        before_start: Awaited before anything of Kafka begins: the early listener.
        before_stop: Awaited when the consumer has left the group, while outputs are still taken.
        after_stop: Awaited when the consumer has left the group.
    """

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.engine = engine
        self.before_start: list[Hook] = []
        self.before_stop: list[Hook] = []
        self.after_stop: list[Hook] = []
        super().__init__(engine.config.app_id, **options)

    async def on_first_start(self) -> None:
        """Listener, engine, then Faust's services."""
        # What is loaded stays; a slice's records are no garbage worth a look every 700 objects.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        await super().on_first_start()
        for hook in self.before_start:
            await hook()
        try:
            await self.engine.start()
        except StartRefused as refused:
            self.engine.die(str(refused), 1)

    async def before_consumer_stops(self) -> None:
        """Numbers are closed while the consumer can still commit for them."""
        await self.engine.shutdown()

    async def on_shutdown(self) -> None:
        """The consumer has left the group."""
        await super().on_shutdown()
        for hook in self.before_stop:
            await hook()
        await self.engine.stop()
        for hook in self.after_stop:
            await hook()


def create_app(engine: Engine, *, stats_port: int) -> EngineApp:
    """The app with one Faust agent for each of the engine's.

    Args:
        stats_port: Faust's stats page on loopback; 0 turns it off, and so does a port in use.
    """
    config = engine.config
    app = EngineApp(
        engine,
        broker=[f"kafka://{server.strip()}" for server in config.connection.brokers.split(",")],
        broker_credentials=_credentials(engine),
        datadir=str(config.data_dir / "faust"),
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=config.numbers,
        # Not 0: Faust would choose its own assignor, and ours is put in over it.
        table_standby_replicas=0,
        TableManager=NoTables,
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=config.session_timeout_s / HEARTBEATS_A_SESSION,
        broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
        broker_request_timeout=REQUEST_TIMEOUT_S,
        broker_max_poll_records=POLL_RECORDS,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        # Without a deadline it would wait for acknowledgements that we do not give through Faust.
        stream_wait_empty=False,
        worker_redirect_stdouts=False,
        web_enabled=_port_is_free(stats_port),
        web_bind="127.0.0.1",
        web_host="127.0.0.1",
        web_port=stats_port or 6066,
        # They serve rows without any authentication.
        web_tables_enabled=False,
        web_router_enabled=False,
        web_stats_enabled=True,
        web_metrics_enabled=False,
        web_graph_enabled=False,
    )
    app.transport = SliceTransport(app.conf.broker_consumer, app)
    for agent in engine.agents:
        _register(app, agent)
    return app


def _register(app: EngineApp, agent: Agent) -> None:
    async def body(stream: Any) -> None:
        async for event in stream.events():
            for slice_ in event.value:
                app.engine.intake.accept(agent.name, slice_)

    body.__name__ = agent.name
    app.agent(app.topic(*agent.topics, schema=SliceSchema()), name=agent.name)(body)


def _port_is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            log.warning("STATS_PORT %d is in use: Faust's stats page is off", port)
            return False
    return True


def _credentials(engine: Engine) -> Any:
    options = engine.config.connection.aiokafka()
    context = options["ssl_context"]
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
