"""Requests feed their metrics, and hostile ones no series of their own."""

from uuid import uuid4

import pytest

from app.observability import metrics
from tests.support.metric_samples import Change, scraped, value
from tests.support.serving import serving


async def test_requests_feed_their_metrics() -> None:
    change = Change()
    async with serving() as api:
        await api.call("GET", "/v1/things/a")
        await api.call("GET", "/v1/things/b")
        assert value("active_connections") == 1
    labels = {"method": "GET", "path": "/v1/things/{id}"}
    assert change.of("http_requests_total", **labels, status="200") == 2
    assert change.of("http_request_duration_seconds_count", **labels) == 2
    assert change.of("http_request_duration_seconds_bucket", **labels, le="+Inf") == 2


@pytest.mark.parametrize("method", ["BREW", "get", "X" * 200])
async def test_a_hostile_request_makes_no_series_of_its_own(method: str) -> None:
    async with serving() as api:
        await api.call("GET", "/nowhere")
        await api.call("BREW", "/nowhere")
        known = set(scraped())
        for path in ("/v1/../../etc/passwd", "/%00%0a", "/v1/things/" + "x" * 2000, "/" + "y" * 2000, "/nowhere?a=b"):
            await api.call("GET", path)
            await api.call(method, path)
        new = {labels for name, labels in set(scraped()) - known if name == "http_requests_total"}
    shown = [dict(labels) for labels in new]
    assert {one["method"] for one in shown} <= {"GET", "other"}
    assert {one["path"] for one in shown} <= {"unmatched", "/v1/things/{id}"}


async def test_a_sampled_trace_of_a_request_is_an_exemplar_in_openmetrics_and_only_there() -> None:
    # Fresh ones: the registry is of the whole process, and keeps the exemplars of the tests before.
    sampled, unsampled, damaged = (uuid4().hex for _ in range(3))
    async with serving() as api:
        await api.call("GET", "/v1/things", headers={"traceparent": f"00-{sampled}-00f067aa0ba902b7-01"})
        await api.call("GET", "/v1/things", headers={"traceparent": f"00-{unsampled}-00f067aa0ba902b7-00"})
        await api.call("GET", "/v1/things", headers={"traceparent": damaged * 10})
        _, plain, plain_headers = await api.call("GET", "/metrics")
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        _, shown, headers = await api.call("GET", "/metrics", headers=accept)
    assert plain_headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    exemplars = [line for line in shown.decode().splitlines() if f'trace_id="{sampled}"' in line]
    assert exemplars
    for line in exemplars:
        assert line.startswith("http_request_duration_seconds_bucket{")
        assert 'path="/v1/things"' in line
        assert 'span_id="00f067aa0ba902b7"' in line.partition(" # {")[2]
    assert unsampled.encode() not in shown
    assert damaged.encode() not in shown
    assert sampled.encode() not in plain
    assert shown.endswith(b"# EOF\n")


async def test_nothing_here_speaks_grpc() -> None:
    assert not [key for key in scraped() if key[0] == "grpc_requests_total"]
    assert "no" in metrics.GRPC_REQUESTS._documentation
