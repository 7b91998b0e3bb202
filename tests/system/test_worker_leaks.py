"""No credential of an upstream and no personal data leaves the worker but where it must: everything is searched."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from confluent_kafka import Producer

from app.devstack.standins import Fault, Standin
from app.events import VaultEventType
from app.publishing import VaultEvent
from tests.support.canaries import PERSONAL, credential, signing_key_entry
from tests.support.certificates import Authority
from tests.support.collector import Collector
from tests.support.leaks import everything_below, everything_on_the_broker, found
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = pytest.mark.kafka

CANARY = "canary-that-is-no-secret"
"""Beside what must not be found: where this is not found either, the search looks in the wrong places."""

EMAIL, SSN, CARD, PHONE, NAME = PERSONAL.values()
NAMED = {name: f"planted-{name}-6f1c2a" for name in ("password", "api_key", "authorization", "client_secret", "token")}
OWN_CREDENTIAL = re.compile(rb"\n(?:Authorization: Bearer|X-Policy-Key:) \S+")


SHOWN: dict[str, Callable[[dict[str, str]], str | None]] = {
    # Events as they came, for whoever may read them; and what only exists once somebody asks for it.
    "/v1/dead-letters/": lambda _: None,
    "/v1/quarantine/": lambda _: None,
    "/v1/replays/": lambda _: None,
    "/v1/registry/sync/": lambda _: None,
    "/console/": lambda _: "/console/app.js",
    "/v1/governance/verifications/": lambda ids: f"/v1/governance/verifications/{ids['verification']}",
    "/v1/webhooks/{id}/activity": lambda ids: f"/v1/webhooks/{ids['webhook']}/activity",
    "/v1/webhooks/{id}": lambda ids: f"/v1/webhooks/{ids['webhook']}",
    "/v1/deliveries/{id}": lambda ids: f"/v1/deliveries/{ids['delivery']}",
    "/v1/registry/datasets/": lambda ids: f"/v1/registry/datasets/{ids['dataset']}",
    "/v1/policy/applicable": lambda ids: f"/v1/policy/applicable?resource={ids['resource']}",
}
"""How a route of the document is asked, by how its path begins; None: not here."""


def planted() -> list[VaultEvent]:
    """Events with personal data and secrets in each place where a service could have put them."""
    text = f"{CANARY}: seen {EMAIL}, {SSN}, {CARD} and {PHONE}"
    deep = {"note": text, "rows": [{"contact": EMAIL, **NAMED}], EMAIL: PHONE}
    data: list[tuple[VaultEventType, dict[str, Any]]] = [
        (
            VaultEventType.PII_DETECTED,
            {
                "dataset_id": "ds-1",
                "pii_types": ["email", "ssn", "name"],
                "record_id": "r-1",
                "detector": CANARY,
                "counts": {"email": 1, "ssn": SSN, "name": NAME},
                "samples": [EMAIL, SSN, NAME],
                "value": NAME,
            },
        ),
        (
            VaultEventType.ANONYMIZATION_COMPLETED,
            {"dataset_id": "ds-1", "job_id": "j", "detections": {"email": EMAIL}, "status": CANARY},
        ),
        (VaultEventType.DATASET_CREATED, {"dataset_id": "ds-1", "name": CANARY, "description": text, "metadata": deep}),
        (VaultEventType.DATASET_UPDATED, {"dataset_id": "ds-1", "name": CANARY, "previous": deep}),
        (VaultEventType.RECORDS_EXPORTED, {"dataset_id": "ds-1", "record_count": 3, "destination": text}),
        (
            VaultEventType.ACCESS_GRANTED,
            {"principal_id": "p-1", "resource_id": "ds-1", "action": "read", "context": deep},
        ),
        (VaultEventType.COMPLIANCE_ALERT, {"framework": "gdpr", "severity": "high", "message": text, "evidence": deep}),
        (VaultEventType.HEALTH_DEGRADED, {"component": "db", "message": text, "details": deep}),
        *(
            (
                VaultEventType.POLICY_VIOLATION,
                {"policy_id": "p", "resource_id": "ds-1", "message": text, "evidence": {**deep, "number": number}},
            )
            for number in range(4)
        ),
    ]
    return [VaultEvent.new(type_, "/vault", content) for type_, content in data]


@dataclass
class Scene:
    """A worker whose upstreams each ask for another kind of credential.

    Attributes:
        secrets: All of them, by name.
        sent: What the stand-ins were sent, without the credential that each asks for itself.
        answers: What the API said.
        folder: The worker's own: its output, its log, its data.
    """

    deployment: Deployment
    given: Path
    secrets: dict[str, str] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def worker(self) -> RunningWorker:
        return self.deployment.workers["w1"]

    @property
    def folder(self) -> Path:
        return self.worker.data_dir.parent

    def secret(self, name: str) -> str:
        """A new one, which must not be found."""
        self.secrets[name] = credential(name)
        return self.secrets[name]

    def put(self, setting: str, value: str) -> None:
        """A file in the folder of secrets, in place of the one before."""
        folder = self.given / "secrets"
        folder.mkdir(exist_ok=True)
        fresh = self.given / "fresh"
        fresh.write_text(value)
        fresh.replace(folder / setting)

    async def set_up(self) -> None:
        """A certificate for the dashboard, a token in a file for it and the registry, a header for the engine."""
        upstreams = self.deployment.upstreams
        for standin in upstreams.all:
            standin.tap = self.tap
        dashboard, policy, registry = upstreams.dashboard, upstreams.policy, upstreams.registry
        server, client = Authority(self.given, "server-authority"), Authority(self.given, "client-authority")
        certificate, key = client.issue("client")
        self.remember_key(key)
        await dashboard.stop()
        dashboard.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client.file))
        dashboard.tls.load_cert_chain(*server.issue("server"))
        dashboard.tls.verify_mode = ssl.CERT_REQUIRED
        await dashboard.start()
        policy.auth_header = "X-Policy-Key"
        policy.token = self.secret("policy key")
        dashboard.token, registry.token = self.secret("dashboard token"), self.secret("registry token")
        self.put("GOVERNANCE__TOKEN", self.secret("expired dashboard token"))
        self.put("REGISTRY__TOKEN", self.secret("expired registry token"))
        # They are in files here, which the environment would hide.
        del self.deployment.settings["GOVERNANCE__TOKEN"], self.deployment.settings["REGISTRY__TOKEN"]
        self.secrets["encryption key"], self.secrets["signing key"] = self.deployment._key, signing_key_entry()
        self.deployment.settings |= {
            "LOG__LEVEL": "debug,aiokafka=debug,faust=debug,mode=debug,aiohttp=debug",
            "PARTITIONS": "1",
            "SECRETS_DIR": str(self.given / "secrets"),
            "API__ADMIN_TOKEN": self.secret("admin token"),
            "API__VIEWER_TOKEN": self.secret("viewer token"),
            "WEBHOOKS__SIGNING_KEYS": json.dumps([self.secrets["signing key"]]),
            "GOVERNANCE__SSL_CA": str(server.file),
            "GOVERNANCE__SSL_CERT": str(certificate),
            "GOVERNANCE__SSL_KEY": str(key),
            "POLICY__TOKEN": self.secrets["policy key"],
            "POLICY__AUTH_HEADER": "X-Policy-Key",
        }

    def remember_key(self, file: Path) -> None:
        """A private key, whole and in its lines."""
        lines = [line for line in file.read_text().splitlines() if "-----" not in line]
        self.secrets["private key"] = "".join(lines)
        self.secrets |= {f"line {n} of the private key": line for n, line in enumerate(lines)}
        assert base64.b64decode(self.secrets["private key"])

    def tap(self, what: str, sent: bytes) -> None:
        """All that a stand-in was sent, but for its own credential in its own header."""
        self.sent.append(
            (f"sent: {what}", re.sub(rb"\n(?:Authorization: Bearer|X-Policy-Key:) \S+", b"", sent, count=1))
        )

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the API, kept for the search; decoded if it is JSON."""
        token = self.secrets["viewer token" if method == "GET" else "admin token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client,
            client.request(method, self.worker.url + path, headers=headers, json=body) as answer,
        ):
            text = await answer.text()
        self.statuses[f"{method} {path}"] = answer.status
        self.answers.append((f"answer: {method} {path}", f"{dict(answer.headers)}{text}".encode()))
        try:
            return json.loads(text)
        except ValueError:
            return text

    async def publish_broken(self) -> None:
        """A record that goes to quarantine: what is said of it elsewhere must not repeat it."""
        broken = {"specversion": "1.0", "id": "broken", "source": "/vault", "type": VaultEventType.PII_DETECTED}
        value = json.dumps(broken | {"data": {"pii_types": [NAME], "samples": [EMAIL, NAMED]}})
        producer = Producer({"bootstrap.servers": self.deployment.brokers})
        producer.produce(self.deployment.topics.events, value.encode())
        assert await asyncio.to_thread(producer.flush, 30) == 0

    async def refused(self, *standins: Standin) -> None:
        """Each has seen a token that it does not take."""
        await self.deployment.observed(
            lambda: all(one.unauthorized for one in standins), "the expired tokens are shown"
        )

    async def read_everything(self) -> None:
        """Each route of the API that shows no event on purpose, as a viewer."""
        ids = {"resource": "ds-1", "dataset": "ds-1"}
        for kind, path in (("webhook", "/v1/webhooks"), ("delivery", "/v1/deliveries")):
            ids[kind] = (await self.call("GET", path))["items"][0]["id"]
        ids["verification"] = (await self.call("POST", "/v1/governance/verifications", {}))["id"]
        document = await self.call("GET", "/openapi.json")
        for template, methods in document["paths"].items():
            path = next((of(ids) for part, of in SHOWN.items() if template.startswith(part)), template)
            if "get" in methods and path is not None:
                await self.call("GET", path)
        report = {"start_date": "2020-01-01T00:00:00Z", "end_date": "2030-01-01T00:00:00Z", "format": "json"}
        await self.call("POST", "/v1/governance/reports", {"report_type": "soc2", **report})
        await self.call("POST", "/v1/registry/sync", {})
        link = {"dataset_id": "ds-1", "model_id": "m", "relationship": "test_data"}
        await self.call("POST", "/v1/registry/links", link)
        asked = {"principal_id": "p-1", "action": "read", "resource_id": "ds-1", "context": {"ask": NAME, **NAMED}}
        await self.call("POST", "/v1/policy/evaluate", asked)
        await self.call("POST", "/v1/policy/evaluate", {"principal_id": [NAME], "context": NAMED})

        served = {asked: status for asked, status in self.statuses.items() if status not in {200, 201, 202}}
        assert served == {"POST /v1/policy/evaluate": 422}

    def verbatim(self) -> frozenset[str]:
        """Topics that hold events as they came, as the contracts have it."""
        topics = self.deployment.topics
        return frozenset(
            {
                *topics.vault,
                topics.deliveries,
                topics.dead_letters,
                topics.quarantine,
                topics.registry_datasets,
                topics.changelog("deliveries"),
            }
        )


@pytest.fixture
async def scene(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = Scene(deployment, tmp_path_factory.mktemp("given"))
    await scene.set_up()
    return scene


@pytest.fixture
def collector(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Of the traces of everything, with a credential of its own."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={scene.secret('collector key')}")
    with Collector() as started:
        scene.deployment.settings["TRACING__ENDPOINT"] = started.endpoint
        yield started


async def test_no_credential_and_no_personal_data_is_where_it_must_not_be(scene: Scene, collector: Collector) -> None:
    deployment, upstreams = scene.deployment, scene.deployment.upstreams
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*")
    upstreams.policy.fault = Fault(200, times=2, body="mistyped", accept=True)
    published = planted()
    await deployment.publish(published)
    await scene.publish_broken()
    await scene.refused(upstreams.dashboard, upstreams.registry)
    await scene.call("GET", "/health")

    # New tokens are taken from the folder while the worker runs, and then each upstream fails in another way.
    upstreams.dashboard.fault = Fault(drop=True, accept=True, times=1)
    upstreams.registry.fault = Fault(307, body="redirect", times=1)
    scene.put("GOVERNANCE__TOKEN", scene.secrets["dashboard token"])
    scene.put("REGISTRY__TOKEN", scene.secrets["registry token"])
    wanted = {(event.source, event.id) for event in published}
    await deployment.observed(lambda: wanted <= upstreams.dashboard.events, "the dashboard has all")
    await deployment.observed(lambda: len(upstreams.policy.violations) == 4, "the engine has all violations")
    await deployment.observed(lambda: "ds-1" in upstreams.registry.datasets, "the registry has the dataset")
    await deployment.observed(lambda: wanted <= hook.receiver.accepted, "the receiver has all")
    await until(lambda: quarantined(scene), "the broken record is in quarantine")
    await scene.read_everything()
    await until(lambda: idle(scene), "no lag anywhere")
    assert await worker.stop() == 0

    topics = await everything_on_the_broker(deployment.brokers, deployment.app_id, deployment.read_raw)
    files = everything_below(scene.folder)
    asked = [place for place in scene.sent if "evaluat" in place[0]]
    told = [place for place in scene.sent if place not in asked]
    spans = [("spans", body) for body in collector.bodies]
    assert {span.name.partition(" ")[0] for span in collector.spans} >= {"process", "send", "POST"}
    assert found(scene.secrets, [*topics, *files, *scene.sent, *scene.answers, *spans]) == []

    derived = [place for place in topics if place[0].partition("/")[0] not in scene.verbatim()]
    written = [place for place in files if not place[0].startswith(str(worker.data_dir))]
    assert found(PERSONAL | NAMED, [*derived, *written, *told, *scene.answers, *spans]) == []
    assert upstreams.dashboard.redirected + upstreams.registry.redirected == 0
    looked_into = {
        "audit": [place for place in derived if place[0].startswith(deployment.topics.audit)],
        "violations": [place for place in derived if place[0].startswith(deployment.topics.violations)],
        "rows": [place for place in files if ": row " in place[0]],
        "to the dashboard": [place for place in told if "/audit/" in place[0]],
        "to the engine": [place for place in told if "/violations" in place[0]],
        "to the registry": [place for place in told if "/datasets" in place[0]],
    }
    assert [name for name, places in looked_into.items() if not found({"": CANARY}, places)] == []
    log = worker.log.read_bytes()
    assert all(said in log for said in (b'"level":"DEBUG"', b"answered 401", b"no answer: reset"))


async def quarantined(scene: Scene) -> bool:
    """Whether one record is."""
    return await scene.worker.metric("vault_stream_quarantined_total") == 1


async def idle(scene: Scene) -> bool:
    """Whether every record of every topic is done."""
    stats = await scene.call("GET", "/v1/stats")
    return not stats["lag"] and not stats["not_ready"]


def test_the_search_finds_each_planted_value() -> None:
    whole = json.dumps([event.data for event in planted()]).encode()
    assert len(found(PERSONAL | NAMED, [("events", whole)])) == len(PERSONAL | NAMED)
