from collections.abc import AsyncIterator

import aiohttp
import pytest

from app.devstack.inbox import Inbox
from app.devstack.stack import listening
from app.devstack.standins import Observations
from tests.unit.devstack.test_receivers import BODY, SECRET, signed


class Said(list[str]):
    """What it said, the last line first to hand."""

    @property
    def last(self) -> str:
        return self[-1].removeprefix("received    ")


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
async def inbox(said: Said) -> AsyncIterator[Inbox]:
    inbox = Inbox(Observations(), said.append)
    inbox.trust(SECRET)
    async with listening(inbox):
        yield inbox


async def post(url: str, body: bytes = BODY, **headers: str) -> int:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


async def test_a_delivery_whose_signature_holds_and_one_whose_does_not(inbox: Inbox, said: Said) -> None:
    assert await post(inbox.hook_url, **signed()) == 204
    assert said.last == "/hook  dataset.created  event e1  delivery dlv_1  (the signature holds)"
    assert await post(inbox.hook_url, **signed(delivery="dlv_2") | {"webhook-signature": "v1,AAAA"}) == 401
    told = "401, the signature does not hold: a webhook of yours wants /inbox"
    assert said.last == f"/hook  dataset.created  event e1  delivery dlv_2  ({told})"


@pytest.mark.parametrize("path", ["", "/", "/mine", "/mine/too"])
async def test_a_webhook_of_somebody_else_is_taken_at_any_path_below_the_inbox(
    inbox: Inbox, said: Said, path: str
) -> None:
    other = "whsec_" + "QUJD" * 10
    assert await post(inbox.open_url + path, **signed(secret=other)) == 204
    assert said.last == f"/inbox{path}  dataset.created  event e1  delivery dlv_1  (the signature is not checked)"
    assert inbox.observed()["requests"] == 1


async def test_a_resend_is_seen_to_be_one(inbox: Inbox, said: Said) -> None:
    for _ in range(2):
        await post(inbox.open_url, **signed())
    assert said.last == "/inbox  dataset.created  event e1  delivery dlv_1, time 2  (the signature holds)"


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b'{"id": "a\\nb", "type": "x\\u001b[2J"}'])
async def test_whatever_comes_is_one_line_without_control_characters(inbox: Inbox, said: Said, body: bytes) -> None:
    assert await post(inbox.open_url, body) == 204
    (line,) = said
    assert line.isprintable()
    assert "delivery none" in line


async def test_it_grants_the_permission_that_a_careful_sender_asks_for(inbox: Inbox) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.options(inbox.open_url, headers={"WebHook-Request-Origin": "vault"}) as answer,
    ):
        assert answer.headers["WebHook-Allowed-Origin"] == "vault"
