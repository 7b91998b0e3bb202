"""Webhook receivers: an honest one, one that fails the first two attempts of each delivery, one that never answers.

Every request is checked as a careful customer would: the Standard Webhooks signature by the independent
`standardwebhooks` library, the `X-Webhook-Signature` header by hand, the ids in the headers against the body.
"""

import asyncio
import hashlib
import hmac
import json
from collections import Counter
from typing import Any, Final, Literal

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.devstack.standins import Observations, Standin

__all__ = ["Receiver", "ReceiverKind", "signatures_hold"]

ReceiverKind = Literal["honest", "flaky", "hanging"]
FAILED_ATTEMPTS: Final = 2
"""How many attempts of each delivery a flaky receiver fails."""


class Receiver(Standin):
    """A webhook receiver; deliveries go to its `hook_url`.

    Args:
        kind: How it behaves when the signature is right; a wrong one is answered with 401.
        observations: Told of every request.

    Attributes:
        accepted: Events answered with 2xx, by source and id.
        duplicates: Deliveries that came again after they were accepted.
        signatures_bad: Requests that did not verify.
        bodies_changed: Deliveries that came again with other bytes.
    """

    def __init__(self, kind: ReceiverKind, observations: Observations) -> None:
        super().__init__(observations)
        self.kind: Final = kind
        self.accepted: set[tuple[str, str]] = set()
        self.attempts: Counter[str] = Counter()
        self.duplicates = 0
        self.signatures_bad = 0
        self.bodies_changed = 0
        self._secrets: list[str] = []
        self._accepted_ids: set[str] = set()
        self._digests: dict[str, bytes] = {}

    @property
    def hook_url(self) -> str:
        """Where deliveries go."""
        return f"{self.url}/hook"

    def trust(self, secret: str) -> None:
        """A secret that deliveries may be signed with, `whsec_` and all."""
        self._secrets.append(secret)

    def observed(self) -> dict[str, Any]:
        """What came, in numbers."""
        return {
            "kind": self.kind,
            "requests": self.requests,
            "deliveries": len(self.attempts),
            "accepted": len(self.accepted),
            "duplicates": self.duplicates,
            "signatures_bad": self.signatures_bad,
            "bodies_changed": self.bodies_changed,
        }

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/hook", self._take)]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = dict(request.headers)
        if not any(signatures_hold(secret, headers, body) for secret in self._secrets):
            self.signatures_bad += 1
            self._observations.notify()
            return web.json_response({"error": "the signature does not verify"}, status=401)
        delivery_id = request.headers["webhook-id"]
        self.attempts[delivery_id] += 1
        digest = hashlib.sha256(body).digest()
        self.bodies_changed += self._digests.setdefault(delivery_id, digest) != digest
        self._observations.notify()
        if self.kind == "hanging":
            await asyncio.Event().wait()  # until the sender hangs up or the server stops
        if self.kind == "flaky" and self.attempts[delivery_id] <= FAILED_ATTEMPTS:
            return web.json_response({"error": "not yet"}, status=503)
        if delivery_id in self._accepted_ids:
            self.duplicates += 1
        self._accepted_ids.add(delivery_id)
        event = json.loads(body)
        self.accepted.add((event["source"], event["id"]))
        return web.Response(status=204)


def signatures_hold(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether both signatures verify with the secret, and the headers speak of the event in the body.

    Args:
        secret: As shown at creation, `whsec_` included.
        headers: Of the request, in any case.
        body: Exactly as received.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    try:
        event = Webhook(secret).verify(body, lowered)
    except (WebhookVerificationError, ValueError):
        return False
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return (
        hmac.compare_digest(expected, lowered.get("x-webhook-signature", ""))
        and lowered.get("x-event-id") == event.get("id")
        and lowered.get("x-delivery-id") == lowered["webhook-id"]
    )
