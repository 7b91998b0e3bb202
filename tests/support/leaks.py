"""Looking for secrets in what a process wrote, in every form in which one could have got there."""

from __future__ import annotations

import asyncio
import base64
import binascii
import html
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import rocksdict
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from tests.support.canaries import marked

SECRET_PREFIX = "whsec_"
_MIN_BYTES = 8


def forms_of(secret: str) -> set[bytes]:
    """A secret as text, in hex and base64, and all of that for the bytes that its own base64 stands for.

    Of base64 there are three, by where in a longer text the secret begins, and each of them in both alphabets.
    """
    quoted, escaped = quote(secret, safe=""), json.dumps(secret)[1:-1]
    forms = {text.encode() for text in (secret, quoted, quote_plus(secret), escaped, json.dumps(escaped)[1:-1])}
    forms |= {re.sub(r"%..", lambda m: m[0].lower(), quoted).encode(), html.escape(secret).encode()}
    for raw in {secret.encode(), *_decoded(secret)}:
        forms |= {raw, raw.hex().encode(), raw.hex().upper().encode()}
        for skipped in range(3):
            # What stands before and behind changes the characters at both ends.
            inner = base64.b64encode(bytes(skipped) + raw)[4 if skipped else 0 : -4]
            forms |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return {form for form in forms if len(form) >= _MIN_BYTES}


def found(secrets: Mapping[str, str], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Which secret is in which place, by their names."""
    needles = {name: forms_of(secret) for name, secret in secrets.items()}
    # Where no mark is, none of those is that have it: one search of some forms in place of thousands.
    without = {name: forms for name, forms in needles.items() if not marked(b" ".join(forms))}
    return [
        f"{name} in {place}"
        for place, data in places
        for name, forms in (needles if marked(data) else without).items()
        if any(form in data for form in forms)
    ]


def _decoded(secret: str) -> set[bytes]:
    """What the base64 in it, behind a prefix or a name, stands for."""
    texts = {secret, secret.rpartition("_")[2], secret.rpartition(":")[2], secret.rpartition(" ")[2]}
    decoded = set()
    for text in texts:
        try:
            decoded.add(base64.b64decode(text, validate=True))
        except binascii.Error:
            continue
    return {one for one in decoded if len(one) >= _MIN_BYTES}


async def everything_on_the_broker(
    brokers: str, app_id: str, read: Callable[..., Awaitable[list[Message]]]
) -> list[tuple[str, bytes]]:
    """Key, value and headers of each record of each topic that has this name in its own.

    Args:
        read: All records of some topics.
    """
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    names = await asyncio.to_thread(lambda: list(admin.list_topics(timeout=20).topics))
    records = await read(*(name for name in names if app_id in name))
    return [(f"{m.topic()}/{m.partition()}/{m.offset()}", _whole(m.key(), m.value(), m.headers())) for m in records]


def everything_below(folder: Path) -> list[tuple[str, bytes]]:
    """Each file: standard output and error, the log file, and the data directory; and each row of each store in it.

    RocksDB compresses: what stands in a row need not stand in a file as it is.
    """
    files = [(str(path), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    stores = [Path(path).parent for path, _ in files if Path(path).name == "CURRENT"]
    return [*files, *(row for store in stores for row in rows_of(store))]


def rows_of(store: Path) -> list[tuple[str, bytes]]:
    """Key and value of each row of a RocksDB that nobody has open."""
    db = rocksdict.Rdict(str(store), rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only())
    try:
        return [(f"{store}: row {key[:60]!r}", b"\n".join((key, value))) for key, value in db.items()]
    finally:
        db.close()


def _whole(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]] | None) -> bytes:
    parts = [key or b"", value or b""]
    for name, content in headers or []:
        parts += [name.encode(), content or b""]
    return b"\n".join(parts)
