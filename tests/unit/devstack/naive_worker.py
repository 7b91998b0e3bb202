"""A worker without any of the hard parts, to prove the demo itself: it keeps its webhooks and starts over after a kill.

With `NAIVE_SKIPS=<type>` it quietly skips the events of a type, which a demo worth its name must notice.
"""

import asyncio
import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from standardwebhooks.webhooks import Webhook

from app.events import CloudEvent, InvalidEvent, check_type, decode_payload, decode_record, delivery_id, vault_topics
from app.integrations.chain import GENESIS, make_entry


def setting(name: str) -> str:
    return os.environ[f"VAULT_STREAM_{name}"]


WEBHOOKS = Path(setting("DATA_DIR")) / "webhooks.json"
SKIPS = os.environ.get("NAIVE_SKIPS")


class NaiveWorker:
    def __init__(self, session: aiohttp.ClientSession, producer: AIOKafkaProducer) -> None:
        self.session = session
        self.producer = producer
        self.webhooks: list[dict[str, Any]] = json.loads(WEBHOOKS.read_text()) if WEBHOOKS.exists() else []
        self.waiting: list[dict[str, Any]] = []
        self.heads: dict[int, str] = {}
        self.gone: set[str] = set()

    async def ready(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        number = len(self.webhooks)
        webhook = {**asked, "id": f"wh_{number}", "secret": "whsec_" + "QUJD" * 10}
        self.webhooks.append(webhook)
        WEBHOOKS.parent.mkdir(exist_ok=True)
        WEBHOOKS.write_text(json.dumps(self.webhooks))
        return web.json_response(webhook, status=201)

    async def change(self, request: web.Request) -> web.Response:
        (webhook,) = (one for one in self.webhooks if one["id"] == request.match_info["id"])
        webhook |= await request.json()
        WEBHOOKS.write_text(json.dumps(self.webhooks))
        return web.json_response(webhook)

    async def list(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": self.webhooks, "next_cursor": None})

    async def deliveries(self, request: web.Request) -> web.Response:
        first = int(request.query.get("cursor", "0"))
        following = first + 3 if first + 3 < len(self.waiting) else None
        cursor = None if following is None else str(following)
        return web.json_response({"items": self.waiting[first : first + 3], "next_cursor": cursor})

    async def handle(self, record: ConsumerRecord, place: int) -> None:
        try:
            event = decode_record(record.value, record.headers)
            check_type(event)
            decode_payload(event)
        except InvalidEvent as error:
            key = f"{record.topic}/{record.partition}/{record.offset}".encode()
            headers = [("vs-reason", error.reason.encode())]
            await self.producer.send_and_wait("vault.quarantine", record.value, key, headers=headers)
            return
        if event.type == SKIPS:
            return
        for webhook in self.webhooks:
            await self.deliver(webhook, event)
        await self.audit(event, record, place)
        await self.report(event)

    async def deliver(self, webhook: dict[str, Any], event: CloudEvent) -> None:
        pattern = webhook["events"][0]
        if pattern == "health.degraded":
            if event.type.endswith(pattern):
                self.waiting.append({"event_id": event.id, "event_source": event.source, "status": "pending"})
            return
        if pattern == "dataset.*" and ".dataset." not in event.type:
            return
        delivery = delivery_id(webhook["id"], event.source, event.id)
        now = datetime.now(UTC)
        headers = {
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(webhook["secret"]).sign(delivery, now, event.posted.decode()),
            "X-Webhook-Signature": "sha256="
            + hmac.new(webhook["secret"].encode(), event.posted, hashlib.sha256).hexdigest(),
            "X-Event-Id": event.id,
            "X-Delivery-Id": delivery,
        }
        while await self.post(webhook["url"], event.posted, headers) >= 300:
            continue

    async def audit(self, event: CloudEvent, record: ConsumerRecord, place: int) -> None:
        entry = make_entry(
            {"id": event.id, "source": event.source},
            partition=place,
            sequence=record.offset,
            timestamp_ms=record.timestamp,
            previous_hash=self.heads.get(place, GENESIS),
        )
        self.heads[place] = entry.hash
        url = setting("GOVERNANCE__ENDPOINT") + "/api/v1/audit/events/batch"
        await self.post(url, b"[" + entry.body + b"]", {"Idempotency-Key": f"{place}-{record.offset}"})

    async def report(self, event: CloudEvent) -> None:
        if event.type.endswith("policy.violation"):
            url = setting("POLICY__ENDPOINT") + "/api/v1/violations"
            await self.post(url, json.dumps({"violation_id": event.id}).encode(), {"Idempotency-Key": event.id})
        dataset = event.data.get("dataset_id")
        url = setting("REGISTRY__ENDPOINT") + "/api/v1/datasets"
        if event.type.endswith("dataset.deleted"):
            self.gone.add(dataset)
            async with self.session.delete(f"{url}/{dataset}"):
                pass
        elif event.type.endswith("dataset.created") and dataset not in self.gone:
            await self.post(url, json.dumps({"id": dataset}).encode(), {})

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        named = {"Content-Type": "application/json", **headers}
        async with self.session.post(url, data=body, headers=named) as response:
            return response.status


async def run() -> None:
    brokers = setting("BROKERS")
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", fetch_max_wait_ms=50)
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await consumer.start()
    await producer.start()
    async with aiohttp.ClientSession() as session:
        worker = NaiveWorker(session, producer)
        app = web.Application()
        app.add_routes(
            [
                web.get("/health/ready", worker.ready),
                web.post("/v1/webhooks", worker.create),
                web.get("/v1/webhooks", worker.list),
                web.patch("/v1/webhooks/{id}", worker.change),
                web.get("/v1/deliveries", worker.deliveries),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(setting("WEB_PORT"))).start()
        partitions = [TopicPartition(topic, number) for topic in vault_topics("vault") for number in range(4)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        async for record in consumer:
            await worker.handle(record, partitions.index(TopicPartition(record.topic, record.partition)))


asyncio.run(run())
