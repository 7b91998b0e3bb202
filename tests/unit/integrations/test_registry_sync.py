"""What the numbers tell of one synchronisation, put together."""

from __future__ import annotations

from app.integrations.registry_sync import SyncMode, SyncPart, merge_parts


def test_what_failed_for_all_is_told_once_and_what_failed_for_one_stays() -> None:
    parts = {}
    for number in range(4):
        part = SyncPart("s-1", SyncMode.PULL)
        part.fail("pull", "the upstream answered 405")
        part.fail(f"ds-{number}", "answered 503")
        parts[number] = part.show(waiting=0)
    found = merge_parts("s-1", parts, 4, young=False)
    assert found is not None
    failed = found.show()["failed"]
    assert [one["id"] for one in failed] == ["pull", "ds-0", "ds-1", "ds-2", "ds-3"]
    assert failed[0] == {"id": "pull", "reason": "the upstream answered 405"}


def test_what_failed_for_several_reasons_is_told_with_each() -> None:
    parts = {}
    for number, reason in enumerate(("answered 503", "answered 409")):
        part = SyncPart("s-1", SyncMode.BOTH)
        part.fail("push", reason)
        parts[number] = part.show(waiting=0)
    found = merge_parts("s-1", parts, 2, young=False)
    assert found is not None
    assert [one["reason"] for one in found.show()["failed"]] == ["answered 503", "answered 409"]
