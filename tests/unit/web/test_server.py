import io
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from app.observability import metrics
from app.observability.health import CheckOutcome, HealthRegistry, HealthStatus
from app.settings import Settings
from app.web import PortInUse, WebServer
from tests.support.serving import TOKENS, VIEWER, serving


def count(path: str, status: int, method: str = "GET") -> float:
    labels = {"method": method, "path": path, "status": str(status)}
    return metrics.REGISTRY.get_sample_value("http_requests_total", labels) or 0


# --- Problem documents


async def test_a_problem_is_a_document_of_rfc_9457() -> None:
    async with serving() as api:
        status, document, headers = await api.call("POST", "/v1/refuse", json={})
        assert status == 422
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["Retry-After"] == "3"
        assert document == {
            "type": "about:blank",
            "title": document["title"],
            "status": 422,
            "detail": "The url is not usable.",
            "code": "invalid",
            "errors": [{"field": "/url", "code": "insecure_url", "message": "must be https"}],
            "id": "wh_1",
        }


async def test_an_unknown_path_and_a_wrong_method_are_documents_too() -> None:
    async with serving() as api:
        status, document, headers = await api.call("GET", "/nowhere")
        assert (status, document["code"], headers["Content-Type"]) == (404, "not_found", "application/problem+json")
        assert document["detail"] == "There is nothing at this path."
        status, document, headers = await api.call("DELETE", "/v1/things")
        assert (status, document["code"]) == (405, "method_not_allowed")
        assert headers["Allow"] == "GET,HEAD,POST"


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b"\xff"])
async def test_a_body_that_is_no_json_is_400(body: bytes) -> None:
    async with serving() as api:
        headers = {"Content-Type": "application/json"}
        status, document, _ = await api.call("POST", "/v1/things", headers=headers, data=body)
        assert (status, document["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
async def test_a_body_of_another_type_is_415(kind: str) -> None:
    async with serving() as api:
        status, document, _ = await api.call("POST", "/v1/things", headers={"Content-Type": kind}, data=b"{}")
        assert (status, document["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/cloudevents+json"])
async def test_a_body_that_says_it_is_json_is_read(kind: str) -> None:
    async with serving() as api:
        status, document, _ = await api.call("POST", "/v1/things", headers={"Content-Type": kind}, data=b'{"a":1}')
        assert (status, document["got"]) == (201, {"a": 1})


async def test_a_body_that_is_too_large_is_413() -> None:
    async with serving() as api:
        large = io.BytesIO(b'"' + b"x" * (8 * 1024 * 1024) + b'"')
        status, document, _ = await api.call(
            "POST", "/v1/things", headers={"Content-Type": "application/json"}, data=large
        )
        assert (status, document["code"]) == (413, "too_large")


async def test_a_failure_is_500_and_says_nothing_of_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as api:
        status, document, headers = await api.call("GET", "/v1/fail")
        assert (status, document["code"]) == (500, "internal_error")
        assert "hunter2" not in json.dumps(document)
        assert headers["X-Request-Id"]
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("?colour=red", "colour", "unknown"),
        ("?status=a&status=b", "status", "repeated"),
        ("?limit=0", "limit", "out_of_range"),
        ("?limit=201", "limit", "out_of_range"),
        ("?limit=ten", "limit", "out_of_range"),
    ],
)
async def test_a_query_parameter_that_is_not_understood_is_422(query: str, field: str, code: str) -> None:
    async with serving() as api:
        status, document, _ = await api.call("GET", f"/v1/things{query}")
        assert (status, document["code"]) == (422, "invalid_query")
        assert [(error["field"], error["code"]) for error in document["errors"]] == [(field, code)]


async def test_a_page_has_fifty_items_unless_said() -> None:
    async with serving() as api:
        assert (await api.call("GET", "/v1/things"))[1]["limit"] == 50
        assert (await api.call("GET", "/v1/things?limit=200"))[1]["limit"] == 200


# --- Context and metrics


async def test_a_request_id_is_taken_over_and_logged() -> None:
    async with serving(TOKENS) as api:
        headers = {**VIEWER, "X-Request-Id": "r-1"}
        _, document, answered = await api.call("POST", "/v1/ask", headers=headers, json={})
        assert document["context"] == ["r-1", "viewer"]
        assert answered["X-Request-Id"] == "r-1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129])
async def test_a_request_id_that_is_not_usable_is_replaced(given: str) -> None:
    async with serving() as api:
        _, _, answered = await api.call("GET", "/v1/things", headers={"X-Request-Id": given})
        assert answered["X-Request-Id"] not in {"", given}


async def test_no_answer_is_kept_by_a_cache() -> None:
    async with serving() as api:
        _, _, answered = await api.call("GET", "/v1/things")
        assert answered["Cache-Control"] == "no-store"
        assert answered["X-Content-Type-Options"] == "nosniff"


async def test_requests_are_counted_by_route_template() -> None:
    async with serving() as api:
        before = count("/v1/things/{id}", 200), count("unmatched", 404), count("unmatched", 404, "other")
        await api.call("GET", "/v1/things/a")
        await api.call("GET", "/v1/things/b")
        await api.call("GET", "/nowhere")
        await api.call("PROPFIND", "/nowhere")
        after = count("/v1/things/{id}", 200), count("unmatched", 404), count("unmatched", 404, "other")
        assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]


async def test_open_connections_are_a_gauge() -> None:
    async with serving() as api:
        _, text, _ = await api.call("GET", "/metrics")
        assert b"\nactive_connections 1.0\n" in text


# --- Listener and operations


async def test_a_port_in_use_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = WebServer(Settings(web_port=port), [])
        with pytest.raises(PortInUse) as caught:
            await server.start()
    assert str(caught.value) == (
        f"127.0.0.1:{port} is in use by another program; stop it or set another VAULT_STREAM_WEB_PORT"
    )


async def test_it_can_be_stopped_twice_and_the_port_is_free_again() -> None:
    async with serving() as api:
        port = api.server.port
        await api.server.stop()
        with socket.create_server(("127.0.0.1", port)):
            pass


def unhealthy() -> Callable[[], Awaitable[CheckOutcome]]:
    async def check() -> CheckOutcome:
        return CheckOutcome(HealthStatus.UNHEALTHY, "no broker")

    return check


@pytest.mark.parametrize(("required", "status"), [(True, 503), (False, 200)])
async def test_health_and_ready_are_503_only_for_a_required_check_and_live_is_not(required: bool, status: int) -> None:
    health = HealthRegistry()
    health.add("kafka", unhealthy(), required=required)
    async with serving(health=health) as api:
        answered, document, _ = await api.call("GET", "/health")
        assert answered == status
        assert document["checks"][0]["message"] == "no broker"
        answered, document, _ = await api.call("GET", "/health/ready")
        assert (answered, document["status"]) == (status, "ready" if status == 200 else "not_ready")
        assert (await api.call("GET", "/health/live"))[0] == 200


async def test_a_draining_worker_is_not_ready() -> None:
    health = HealthRegistry()
    health.drain()
    async with serving(health=health) as api:
        assert (await api.call("GET", "/health/ready"))[0] == 503
        assert (await api.call("GET", "/health"))[0] == 200


async def test_metrics_come_as_openmetrics_on_request() -> None:
    async with serving() as api:
        _, text, headers = await api.call("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert text.endswith(b"# EOF\n")


async def test_stats_are_the_sections_that_were_handed_in() -> None:
    async with serving(TOKENS) as api:
        assert (await api.call("GET", "/v1/stats"))[0] == 401
        _, document, _ = await api.call("GET", "/v1/stats", headers=VIEWER)
        assert document == {"version": metrics.VERSION, "numbers": {"held": 3}}
