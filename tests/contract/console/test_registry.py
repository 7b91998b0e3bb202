"""The registry: how much it is still to be told, what a synchronisation did, one dataset and its links."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Route, expect

from app.events import VaultEventType
from app.publishing import VaultEvent
from tests.support.console import EVIL, Seen, System

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]
SYNC = "0189f7ea-ae2c-7b2a-8d5f-000000000000"


@pytest.fixture(scope="module")
def dataset(system: System) -> str:
    """The id of a dataset that the registry has."""
    return created(system, "ds-console", "Claims of 2026")


def created(system: System, dataset: str, name: str) -> str:
    """The vault tells of it, and the registry has it."""
    data = {"dataset_id": dataset, "name": name, "format": "csv"}
    made = VaultEvent.new(VaultEventType.DATASET_CREATED, "/vault/console", data)
    system.run(system.deployment.publish([made]))
    registry = system.deployment.upstreams.registry
    system.until(lambda: dataset in registry.datasets, "the registry has the dataset")
    system.until(lambda: shown(system, dataset)["state"] == "synced", "the worker knows that it has")
    return dataset


def shown(system: System, dataset: str) -> dict[str, Any]:
    return dict(system.call("GET", f"/v1/registry/datasets/{quote(dataset, safe='')}"))


def test_without_a_synchronisation_the_page_says_what_to_do_next(console: Console) -> None:
    seen = console("/registry", role="viewer")
    seen.page.get_by_role("region", name="State").wait_for()
    seen.has("None that a worker remembers.")
    seen.has("vault-stream registry sync")
    assert [one.inner_text() for one in seen.page.get_by_role("main").get_by_role("button").all()] == ["Show"]
    seen.check()


def test_one_dataset_is_found_by_its_id_and_linked_to_a_model(console: Console, system: System, dataset: str) -> None:
    seen = console("/registry")
    seen.button("Show")
    expect(seen.page.get_by_label("Dataset id")).to_have_attribute("aria-invalid", "true")
    seen.page.get_by_label("Dataset id").fill(dataset)
    seen.button("Show")
    seen.page.get_by_role("heading", level=1, name=dataset).wait_for()
    seen.has("The registry has it as it is.")
    seen.has("Claims of 2026")
    seen.has("No model is linked.")
    seen.check()
    seen.button("Link a model")
    form = seen.page.get_by_role("dialog", name="Link a model?")
    expect(form).to_contain_text(dataset)
    seen.allowed.add(422)
    form.get_by_role("button", name="Link", exact=True).click()
    expect(form.get_by_label("Model id")).to_have_attribute("aria-invalid", "true")
    seen.check()
    form.get_by_label("Model id").fill("model-7")
    form.get_by_label("Relationship").select_option("evaluation_data")
    form.get_by_role("button", name="Link", exact=True).click()
    seen.has("The link is noted; the registry is told.")
    row = seen.page.get_by_role("table", name="Models that use this dataset").get_by_role("row", name="model-7")
    expect(row).to_contain_text("evaluation_data")
    expect(row).to_contain_text("linked")
    assert shown(system, dataset)["links"][0]["model_id"] == "model-7"
    seen.check()


def test_a_synchronisation_is_started_and_watched_until_it_is_done(console: Console, dataset: str) -> None:
    seen = console("/registry")
    seen.button("Synchronise")
    form = seen.page.get_by_role("dialog", name="Synchronise with the registry?")
    form.get_by_label("Which way").select_option("both")
    seen.check()
    form.get_by_role("button", name="Start").click()
    seen.page.get_by_role("heading", level=1, name="Synchronisation").wait_for()
    result = seen.page.get_by_role("region", name="Result")
    expect(result.locator(".badge")).to_have_text("done")
    expect(result).to_contain_text("both")
    seen.check()
    seen.page.get_by_role("link", name="Registry", exact=True).first.click()
    last = seen.page.get_by_role("region", name="Last synchronisation")
    expect(last).to_contain_text("done")
    seen.check()
    last.get_by_role("link", name="All of it").click()
    seen.page.get_by_role("heading", level=1, name="Synchronisation").wait_for()


def test_conflicts_and_failures_are_named_and_what_they_say_is_text(console: Console) -> None:
    part = {"mode": "both", "done": True, "pushed": 1, "pulled": 2, "not_named": 3, "waiting": 4}
    conflict = {"dataset_id": EVIL, "vault": {"name": EVIL}, "registry": EVIL, "winner": "vault"}
    told = {**part, "conflicts": [conflict], "failed": [{"id": "pull", "reason": EVIL}, {"id": "ds/9", "reason": "no"}]}
    sync = {"id": SYNC, "state": "running", **told, "missing": [3], "parts": {"0": told, "1": {**told, "done": False}}}
    seen = console("/webhooks")
    seen.page.route(f"**/v1/registry/sync/{SYNC}", lambda route: route.fulfill(json=sync))
    seen.go(f"/registry/syncs/{SYNC}", "Synchronisation")
    seen.page.get_by_role("progressbar", name="Partitions that are done").wait_for()
    expect(seen.page.get_by_role("region", name="Result")).to_contain_text("1 partition: 3")
    conflicts = seen.page.get_by_role("table", name="Conflicts of this synchronisation")
    expect(conflicts).to_contain_text(json.dumps({"name": EVIL}, indent=2)[4:-2].strip())
    failed = seen.page.get_by_role("table", name="What failed, and why")
    assert failed.get_by_role("link").all_inner_texts() == ["ds/9"]
    assert seen.page.locator("main img, main script").count() == 0
    seen.check()
    failed.get_by_role("link", name="ds/9").click()
    seen.allowed.add(404)
    seen.page.get_by_role("heading", level=1, name="ds/9").wait_for()
    seen.has("No dataset of this id is known.")
    seen.check()


def test_a_synchronisation_that_is_done_with_failures_does_not_look_well(console: Console) -> None:
    part = {"mode": "pull", "done": True, "pushed": 0, "pulled": 0, "not_named": 0, "waiting": 0, "conflicts": []}
    told = {**part, "failed": [{"id": f"ds-{number}", "reason": "answered 503"} for number in range(4)]}
    sync = {"id": SYNC, "state": "done", **told, "missing": [], "parts": {"0": told}}
    asked = [{"id": SYNC, "asked_at": "2025-01-31T12:00:00.000Z"}]
    status = {"off": False, "mode": "both", "waiting": 0, "syncs": asked, "missing": []}
    seen = console("/webhooks")
    seen.page.route("**/v1/registry/status", lambda route: route.fulfill(json=status))
    seen.page.route(f"**/v1/registry/sync/{SYNC}", lambda route: route.fulfill(json=sync))
    for path, heading, region in (
        ("/registry", "Registry", "Last synchronisation"),
        (f"/registry/syncs/{SYNC}", "Synchronisation", "Result"),
    ):
        seen.go(path, heading)
        badge = seen.page.get_by_role("region", name=region).locator(".badge")
        expect(badge).to_have_text("done, 4 failed")
        expect(badge).to_have_class("badge warn")
        seen.check()


def test_a_synchronisation_that_nobody_remembers_says_so(console: Console) -> None:
    seen = console("/webhooks")
    seen.allowed.add(404)
    seen.go(f"/registry/syncs/{SYNC}")
    seen.has("no worker remembers it")
    seen.check()


def test_without_a_registry_the_page_says_what_to_do(console: Console) -> None:
    seen = console("/webhooks")

    def status(route: Route) -> None:
        route.fulfill(json={"off": True, "mode": "push", "waiting": 0, "syncs": [], "missing": []})

    seen.page.route("**/v1/registry/status", status)
    seen.go("/registry", "Registry")
    seen.has("There is no registry.")
    seen.has("VAULT_STREAM_REGISTRY__ENDPOINT")
    assert seen.page.get_by_role("button", name="Synchronise").count() == 0
    seen.check()


def test_a_viewer_sees_no_action(console: Console, dataset: str) -> None:
    seen = console(f"/registry/datasets/{dataset}", role="viewer")
    seen.page.get_by_role("region", name="Links to models").wait_for()
    assert seen.page.get_by_role("main").get_by_role("button").count() == 0
    seen.check()


def test_what_the_vault_says_is_text_and_nothing_else(console: Console, system: System) -> None:
    created(system, EVIL, EVIL)
    seen = console(f"/registry/datasets/{quote(EVIL, safe='')}")
    seen.page.get_by_role("heading", level=1, name=EVIL).wait_for()
    seen.page.get_by_role("region", name="What the registry is to hold").wait_for()
    assert seen.page.locator("main img, main script").count() == 0
    expect(seen.page).to_have_title(f"{EVIL} | vault-stream")
    seen.check()
