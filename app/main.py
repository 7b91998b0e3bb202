"""The worker: engine, tables, agents and web, put together. The only place where all of them meet.

`vault-stream worker` and `faust -A app.main worker` start the same `app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final, NoReturn

from agents.decisions import decisions_agent
from agents.governance import GovernanceOptions, governance_agent
from agents.router import router_agent
from agents.violations import violations_agent
from agents.webhooks import WebhooksDeps, webhooks_agent
from app.brokers import REFUSALS, Connection, TlsFileError, connection_to, overhear
from app.deployment import plan_of
from app.engine import Agent, StartRefused, faults
from app.engine.app import EngineApp, create_app
from app.engine.engine import Engine, EngineConfig
from app.events import STRUCTURED_HEADERS, new_event
from app.integrations.governance import Flush
from app.observability import metrics
from app.observability.health import HealthRegistry, LoopWatch
from app.observability.logging import LogError, configure_logging
from app.readiness import add_checks
from app.settings import Settings, SettingsError, keep_instance_id, load_settings
from app.topics import (
    BrokerRefusesError,
    BrokerUnreachableError,
    TopicAdmin,
    TopicError,
    Topics,
    apply,
    refusal,
    warnings,
)
from app.web.forward import Forwarder
from app.web.server import ListenError, WebServer
from app.webhooks.derived import Publisher
from app.webhooks.guard import TargetGuard
from app.webhooks.matching import MatchIndex
from app.webhooks.pace import GlobalSlots
from app.webhooks.secrets import KeyRing
from app.webhooks.sender import Sender
from app.webhooks.signing import SigningKey
from app.worker_governance import at_origin
from app.worker_health import health_news
from app.worker_registry import registry_of
from app.worker_routes import worker_routes
from app.worker_tracing import messages_of, sender_of, tracing_of
from app.worker_upstreams import Credentials, make_upstream, make_upstreams
from app.worker_webhooks import LateSender, delivery_options
from tables.audit_queries import AuditReaders
from tables.datasets import DatasetReaders
from tables.decisions import DecisionReaders
from tables.delivery_queries import Readers
from tables.positions import POSITIONS
from tables.webhooks import WEBHOOKS, WebhookRow

if TYPE_CHECKING:
    from pydantic import SecretStr


__all__ = ["EMBEDDED_PARTITIONS", "Program", "build", "run_worker"]

log = logging.getLogger("app.main")

EMBEDDED_PARTITIONS: Final = 4
BROKER_RETRY_S: Final = 2.0
CRASH_POLL_S: Final = 0.5
# Drain (15 s) and checkpoint (5 s) first; below the 30 s that supervisors give.
STOP_S: Final = 25.0


class Program:
    """One worker process.

    Raises:
        StartRefused: `DATA_DIR` is in use.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics(settings.topic_prefix, settings.app_id)
        self.health = HealthRegistry(("kafka", "assignment", "recovery", "store"))
        self.watch = LoopWatch()
        self.tracing = tracing_of(settings, os.environ)
        self.tracer = None if self.tracing is None else self.tracing.tracer
        self.upstreams = make_upstreams(settings, self.tracer)
        self.downloads = make_upstream(at_origin(settings.governance), self.tracer)
        self.connection = _connection(settings)
        self.credentials = Credentials(
            settings,
            [*self.upstreams.items(), ("governance", self.downloads)],
            also=lambda changed: self.connection.renew(connection_to(changed.brokers, changed.kafka)),
        )
        self.index = MatchIndex()
        self.decisions = DecisionReaders()
        self.datasets = DatasetReaders()
        self.readers, self.audits = Readers(), AuditReaders()
        self.signing_keys = _signing_keys(settings)
        self.keys = KeyRing(_secrets(settings.webhooks.encryption_keys), os.urandom)
        metrics.ENCRYPTION_KEY_MISSING.set(self.keys.active_key_id is None)
        if self.keys.active_key_id is None:
            log.warning(
                "no WEBHOOKS__ENCRYPTION_KEYS: webhooks cannot be created, and existing ones wait for their key"
            )
        self.guard = TargetGuard(settings.webhooks.allow_targets, allow_http=settings.webhooks.allow_http)
        self.sender = LateSender()
        self._until_released = contextlib.ExitStack()
        self.engine = self._engine()
        self.news = health_news(settings, self.engine, self.upstreams, self.topics.events)
        self.forwarder = Forwarder(self.engine.ownership)
        keep_instance_id(settings)
        self.webhooks = self.engine.replica(WEBHOOKS)
        self.webhooks.subscribe(self._matched)
        self.app = self._app()
        self.web = WebServer(settings, worker_routes(self))
        has_key = self.keys.active_key_id is not None
        add_checks(self.health, self.engine, settings.data_dir, self.upstreams, has_key=has_key)

    # -- parts

    def _engine(self) -> Engine:
        settings = self.settings
        config = EngineConfig(
            app_id=settings.app_id,
            connection=self.connection,
            numbers=settings.partitions,
            data_dir=settings.data_dir,
            instance=settings.instance_id,
            url=settings.public_url,
            quarantine_topic=self.topics.quarantine,
            session_timeout_s=settings.session_timeout_s,
            checkpoint_interval_s=settings.checkpoint_interval_s,
        )
        engine = Engine(config, self._agents())
        engine.on_gap(self._publish_gap)
        return engine

    def _agents(self) -> list[Agent]:
        settings, topics, traces = self.settings, self.topics, messages_of(self.settings, self.tracing)
        agents = [
            router_agent(topics, self.index, POSITIONS, (WEBHOOKS,), traces),
            webhooks_agent(topics, self._webhooks_deps()),
        ]
        governance = settings.governance
        if (dashboard := self.upstreams["governance"]) is not None:
            flush = Flush(governance.buffer_size, governance.buffer_bytes, governance.flush_interval_s)
            options = GovernanceOptions(flush, governance.path_audit_batch, governance.retention_d)
            agents.append(governance_agent(topics, dashboard, options, readers=self.audits, traces=traces))
        if (policy := self.upstreams["policy"]) is not None:
            agents.append(violations_agent(topics, policy, path=settings.policy.path_violations))
            agents.append(decisions_agent(topics, self.decisions))
        agents.append(registry_of(settings, topics, self.upstreams["registry"], self.datasets))
        for name, upstream in self.upstreams.items():
            if upstream is None:
                log.info("%s has no endpoint: it is off, and nothing for it is thrown away", name)
        return agents

    def _webhooks_deps(self) -> WebhooksDeps:
        chosen = self.settings.webhooks
        return WebhooksDeps(
            sender=sender_of(self.sender, self.tracer),
            keys=self.keys,
            slots=GlobalSlots(chosen.max_concurrent),
            publisher=Publisher(f"/vault-stream/{self.settings.app_id}", self.settings.instance_id),
            readers=self.readers,
            options=delivery_options(chosen),
            signing_key=self.signing_keys[0] if self.signing_keys else None,
            busy=lambda: self.engine.pace.busy,
        )

    def _matched(self, key: bytes, row: WebhookRow | None) -> None:
        """Every router matches a webhook from the moment its row is in the log."""
        webhook_id = key.decode()
        if row is None or row.deleting:
            self.index.remove(webhook_id)
        else:
            self.index.set(webhook_id, row.events, row.filter)

    def _app(self) -> EngineApp:
        app = create_app(self.engine, stats_port=self.settings.stats_port)
        app.before_start += [self._listen, self._prepare_broker]
        app.after_stop.append(self._release)
        return app

    # -- begin and end

    async def _listen(self) -> None:
        """The listener first: it answers health and metrics while everything else begins."""
        self.watch.start()
        self.credentials.start()
        self.news.start()
        self._until_released.enter_context(overhear())
        chosen = self.settings.webhooks
        self.sender.sender = Sender(
            self.guard,
            max_connections=chosen.max_concurrent,
            max_connections_per_host=chosen.max_concurrent,
            extra_ca_file=chosen.ssl_ca,
            egress_proxy=_secret(chosen.egress_proxy),
        )
        try:
            await self.web.start()
        except ListenError as error:
            self.engine.die(str(error), 1)

    async def _prepare_broker(self) -> None:
        """Wait for the broker; create the topics that are missing; refuse what would lose records."""
        while True:
            try:
                await asyncio.to_thread(self._check_broker)
            except BrokerUnreachableError as error:
                log.warning("waiting for the broker: %s", error)
                await asyncio.sleep(BROKER_RETRY_S)
            except BrokerRefusesError as error:
                # Who ends for it is started again at once, and is no wiser.
                REFUSALS.say(str(error))
                await asyncio.sleep(BROKER_RETRY_S)
            except (TopicError, StartRefused) as error:
                self.engine.die(str(error), 1)
            else:
                return

    def _check_broker(self) -> None:
        settings = self.settings
        admin = TopicAdmin(self.connection.librdkafka())
        if admin.embedded:
            if settings.partitions != EMBEDDED_PARTITIONS:
                raise StartRefused(
                    f"the embedded cluster has {EMBEDDED_PARTITIONS} partitions a topic;"
                    f" set VAULT_STREAM_PARTITIONS={EMBEDDED_PARTITIONS}"
                )
            self.engine.unfence()
        for line in warnings(replication=settings.replication, broker_count=admin.broker_count):
            log.warning(line)
        for difference in apply(plan_of(settings), admin):
            if (refused := refusal(difference, self.topics, settings.brokers)) is not None:
                raise StartRefused(refused)
            log.warning("topic %s", difference)

    async def _release(self) -> None:
        await self.credentials.stop()
        await self.news.stop()
        for upstream in self.upstreams.values():
            if upstream is not None:
                await upstream.close()
        if self.sender.sender is not None:
            await self.sender.sender.close()
        await self.web.stop()
        await self.forwarder.close()
        if self.tracing is not None:
            await self.tracing.close()
        self.watch.stop()
        self._until_released.close()

    async def run(self) -> int:
        """Run until a signal; the exit code."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def asked() -> None:
            if stop.is_set():
                self.engine.skip_drain()
            self.health.drain()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked)
        self.app.in_worker = True
        self.app.finalize()
        starting = asyncio.create_task(self.app.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CRASH_POLL_S):
                    await stop.wait()
            if self.app.crashed:
                self.engine.die("the application crashed; the log says why")
        starting.cancel()
        log.info("stopping: drain, checkpoint, leave the group")
        # Not cancelled when it takes too long: Faust swallows that, and goes on without a limit.
        ending = asyncio.create_task(self.app.stop())
        await asyncio.wait({ending}, timeout=STOP_S)
        if not ending.done():
            # A frozen broker takes no goodbye; numbers are checkpointed and closed by then, or their log has the truth.
            self.engine.die(f"not everything ended within {STOP_S:.0f} s", 0)
        ending.result()
        log.info("stopped: exit 0")
        return 0

    # -- what operators see

    async def _publish_gap(self, topic: str, partition: int, first: int, next_: int) -> None:
        """Retention took records before they were read: say so in the log that auditors read."""
        event = new_event(
            id=str(uuid.uuid4()),
            source=f"/vault-stream/{self.settings.app_id}",
            type="llm.data-vault.stream.gap",
            subject=topic,
            data={"topic": topic, "partition": partition, "from": first, "to": next_},
        )
        await self.engine.outputs.send(self.topics.events, topic.encode(), event.posted, STRUCTURED_HEADERS)


def _connection(settings: Settings) -> Connection:
    connection = connection_to(settings.brokers, settings.kafka)
    REFUSALS.know(connection.principal, (f"{settings.topic_prefix}.", f"{settings.app_id}-"))
    try:
        connection.ssl_context()
    except TlsFileError as error:
        raise StartRefused(f"VAULT_STREAM_{error}") from None
    return connection


def _signing_keys(settings: Settings) -> list[SigningKey]:
    try:
        return [SigningKey(entry) for entry in _secrets(settings.webhooks.signing_keys)]
    except ValueError as error:
        raise StartRefused(f"VAULT_STREAM_WEBHOOKS__SIGNING_KEYS: {error}") from None


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _secrets(values: tuple[SecretStr, ...]) -> list[str]:
    return [value.get_secret_value() for value in values]


def build(settings: Settings) -> Program:
    """Put a worker together; nothing runs yet.

    Raises:
        StartRefused, LogError: One line says what to change.
    """
    configure_logging(settings.log.format, settings.log.level, settings.log.output)
    try:
        faults.arm(faults.parse(settings.fault) if settings.fault else None)
    except ValueError as error:
        raise StartRefused(f"VAULT_STREAM_FAULT: {error}") from error
    return Program(settings)


async def _run_to_exit(program: Program) -> NoReturn:
    code = await program.run()
    logging.shutdown()
    # Threads that still ask a dead broker or resolver would hold up an ordinary end.
    os._exit(code)


def run_worker() -> None:
    """`vault-stream worker`: does not return, but ends the process with the worker's exit code."""
    import uvloop  # noqa: PLC0415  # Faust's own command line chooses its loop itself

    uvloop.run(_run_to_exit(build(load_settings())))


def __getattr__(name: str) -> Any:
    """`faust -A app.main worker` looks for `app`; building it is not for everybody who imports this module."""
    if name != "app":
        raise AttributeError(name)
    try:
        program = build(load_settings())
    except (SettingsError, StartRefused, LogError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # there is no log yet
        raise SystemExit(1) from error
    globals()["app"] = program.app
    return program.app
