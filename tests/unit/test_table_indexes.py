"""What an index makes of a row is on disks: where it changes its version must, too."""

from hashlib import sha256
from typing import Any

import pytest

from app.engine import Table
from app.integrations.policy import Decision, Verdict
from app.integrations.registry import DatasetRow
from app.webhooks.model import DeliveryRow, Reason, Status
from tables.datasets import DATASETS, dataset_key
from tables.decisions import DECISIONS, decision_key
from tables.deliveries import (
    DELIVERIES,
    delivery_key,
    event_prefix,
    expiry_place,
    id_prefix,
    newest_first,
    status_prefix,
    time_prefix,
)

WAITING = {Status.PENDING: Reason.SLOT, Status.RETRYING: Reason.RETRY}


def deliveries() -> list[tuple[bytes, Any]]:
    return [
        (
            delivery_key("wh_a", f"dlv_{subject}_{status}"),
            DeliveryRow(
                delivery_id=f"dlv_{subject}_{status}",
                webhook_id="wh_a",
                event_id="e-1",
                event_source="/vault",
                event_type="dataset.created",
                subject=subject,
                sequence=7,
                status=status,
                reason=WAITING.get(status),
                attempts=2,
                created_at_ms=1_790_000_000_000,
                waiting_since_ms=1_790_000_000_000,
                next_at_ms=1_790_000_005_000 if status in WAITING else None,
                expires_at_ms=1_790_086_400_000,
            ),
        )
        for status in Status
        for subject in ("ds-1", None)
    ]


def decisions() -> list[tuple[bytes, Any]]:
    verdict = Verdict(allowed=True, reason="open", matched_policies=())
    return [
        (
            decision_key("user-1", "ab" * 32),
            Decision(
                principal_id="user-1",
                action="read",
                resource_id="ds-1",
                context_hash="0",
                key="ab" * 32,
                verdict=verdict,
                began_ms=1,
                decided_ms=2,
                expires_ms=expires_ms,
            ),
        )
        for expires_ms in (None, 1_790_000_000_000)
    ]


def datasets() -> list[tuple[bytes, Any]]:
    return [(dataset_key("ds-1"), DatasetRow(id="ds-1", deleted_ms=1, version=version, pushed=1)) for version in (1, 2)]


@pytest.mark.parametrize(
    ("table", "rows", "version", "digest"),
    [
        (DELIVERIES, deliveries(), 1, "be623bed286c8d40"),
        (DECISIONS, decisions(), 1, "7a79e45f07ef288d"),
        (DATASETS, datasets(), 1, "f70e5570874b9d23"),
    ],
    ids=["deliveries", "decisions", "datasets"],
)
def test_an_index_makes_the_keys_of_its_version(
    table: Table[Any], rows: list[tuple[bytes, Any]], version: int, digest: str
) -> None:
    keys = [table.index_of(table.store_key(key), table.encode(row)) for key, row in rows]

    assert any(keys)
    made = sha256(repr(keys).encode()).hexdigest()[:16]
    assert (table.index_version, made) == (version, digest), "another index_version of the table, and its digest here"


@pytest.mark.parametrize(("key", "row"), deliveries())
def test_the_keys_of_a_delivery_lie_where_they_are_looked_for(key: bytes, row: DeliveryRow) -> None:
    place = newest_first(row.created_at_ms, row.delivery_id)
    looked_for = [
        id_prefix(row.delivery_id) + key,
        event_prefix(row.event_id) + place,
        status_prefix(row.webhook_id, row.status) + place,
        time_prefix(row.status) + place,
        expiry_place(row.expires_at_ms) + key,
    ]

    made = DELIVERIES.keys_of(key, row)

    assert all(
        found.startswith(DELIVERIES.index_byte + wanted) for found, wanted in zip(made, looked_for, strict=False)
    )
    assert len(made) - len(looked_for) == row.status.waits * (1 + (row.subject is not None))
