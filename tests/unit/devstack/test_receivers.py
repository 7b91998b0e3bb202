import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from app.devstack.receivers import Receiver, ReceiverKind, signatures_hold
from app.devstack.stack import listening
from app.devstack.standins import Observations

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
BODY = b'{"specversion":"1.0","id":"e1","source":"/vault/api","type":"llm.data-vault.dataset.created"}'


def signed(body: bytes = BODY, delivery: str = "dlv_1", secret: str = SECRET) -> dict[str, str]:
    """Headers as contracts 2 asks for, made by hand."""
    timestamp = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    v1 = base64.b64encode(hmac.new(key, f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": delivery,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{v1}",
        "X-Webhook-Signature": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        "X-Event-Id": "e1",
        "X-Delivery-Id": delivery,
        "Content-Type": "application/cloudevents+json; charset=utf-8",
    }


def test_signatures_made_by_hand_hold() -> None:
    assert signatures_hold(SECRET, signed(), BODY)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-signature", "v1," + base64.b64encode(b"x" * 32).decode()),
        ("webhook-timestamp", "1"),
        ("X-Webhook-Signature", "sha256=" + "0" * 64),
        ("X-Event-Id", "another"),
        ("X-Delivery-Id", "another"),
    ],
)
def test_a_wrong_header_does_not_hold(header: str, value: str) -> None:
    assert not signatures_hold(SECRET, {**signed(), header: value}, BODY)


@pytest.mark.parametrize("header", ["webhook-id", "webhook-signature", "X-Webhook-Signature", "X-Event-Id"])
def test_a_missing_header_does_not_hold(header: str) -> None:
    headers = signed()
    del headers[header]
    assert not signatures_hold(SECRET, headers, BODY)


def test_another_body_or_secret_does_not_hold() -> None:
    assert not signatures_hold(SECRET, signed(), BODY.replace(b"created", b"deleted"))
    assert not signatures_hold("whsec_" + base64.b64encode(b"z" * 32).decode(), signed(), BODY)


class Sender:
    """Posts signed deliveries to one receiver."""

    def __init__(self, receiver: Receiver, session: aiohttp.ClientSession) -> None:
        self.receiver = receiver
        self._session = session

    async def post(self, delivery: str = "dlv_1", body: bytes = BODY, secret: str = SECRET) -> int:
        headers = signed(body, delivery, secret)
        async with self._session.post(self.receiver.hook_url, data=body, headers=headers) as response:
            return response.status


@pytest.fixture
async def sender(request: pytest.FixtureRequest) -> AsyncIterator[Sender]:
    kind: ReceiverKind = getattr(request, "param", "honest")
    receiver = Receiver(kind, Observations())
    receiver.trust(SECRET)
    async with listening(receiver), aiohttp.ClientSession() as session:
        yield Sender(receiver, session)


async def test_an_honest_receiver_accepts_and_counts_what_comes_again(sender: Sender) -> None:
    assert [await sender.post(), await sender.post(), await sender.post("dlv_2")] == [204, 204, 204]
    assert sender.receiver.accepted == {("/vault/api", "e1")}
    assert sender.receiver.duplicates == 1
    assert sender.receiver.bodies_changed == 0


async def test_a_bad_signature_is_counted_and_not_accepted(sender: Sender) -> None:
    wrong = "whsec_" + base64.b64encode(b"z" * 32).decode()
    assert await sender.post(secret=wrong) == 401
    assert sender.receiver.signatures_bad == 1
    assert sender.receiver.accepted == set()


async def test_a_second_secret_is_trusted_too(sender: Sender) -> None:
    second = "whsec_" + base64.b64encode(b"s" * 32).decode()
    sender.receiver.trust(second)
    assert [await sender.post(secret=SECRET), await sender.post("dlv_2", secret=second)] == [204, 204]


async def test_a_repeat_with_other_bytes_is_noticed(sender: Sender) -> None:
    await sender.post()
    await sender.post(body=BODY.replace(b"created", b"deleted"))
    assert sender.receiver.bodies_changed == 1


@pytest.mark.parametrize("sender", ["flaky"], indirect=True)
async def test_a_flaky_receiver_fails_two_attempts_of_each_delivery(sender: Sender) -> None:
    assert [await sender.post("dlv_1") for _ in range(4)] == [503, 503, 204, 204]
    assert [await sender.post("dlv_2") for _ in range(3)] == [503, 503, 204]
    assert sender.receiver.duplicates == 1


@pytest.mark.parametrize("sender", ["hanging"], indirect=True)
async def test_a_hanging_receiver_never_answers_and_counts_the_attempt(sender: Sender) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await sender.post()
    assert sender.receiver.observed()["deliveries"] == 1
    assert sender.receiver.accepted == set()
