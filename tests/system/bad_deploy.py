"""The worker of this installation with a bug in its router: it throws on every event that records were ingested."""

from typing import Any

from agents import router
from app.cli import main
from app.events import VaultEventType

_decode_payload = router.decode_payload


def throw(event: Any) -> Any:
    if event.type == VaultEventType.RECORDS_INGESTED:
        raise RuntimeError("a bug")
    return _decode_payload(event)


if __name__ == "__main__":
    router.decode_payload = throw
    main(["worker"])
