"""Who may do what; and without tokens: this machine only, and no web page on it."""

import hashlib

import pytest

from app.settings import ApiSettings, Settings
from app.web import WebServer
from tests.support.serving import ADMIN, TOKENS, VIEWER, serving

# --- Who may do what


async def test_a_viewer_reads_and_an_admin_writes() -> None:
    async with serving(TOKENS) as api:
        assert (await api.call("GET", "/v1/things", headers=VIEWER))[0] == 200
        status, document, _ = await api.call("POST", "/v1/things", headers=VIEWER, json={})
        assert (status, document["code"]) == (403, "forbidden")
        assert (await api.call("POST", "/v1/things", headers=ADMIN, json={}))[0] == 201


async def test_a_question_in_a_body_is_a_read() -> None:
    async with serving(TOKENS) as api:
        assert (await api.call("POST", "/v1/ask", headers=VIEWER, json={}))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic admin-token"},
        {"Authorization": "admin-token"},
        {"Authorization": f"Bearer {hashlib.sha256(b'ci-token').hexdigest()}"},
    ],
)
async def test_without_a_known_token_the_answer_is_401(headers: dict[str, str]) -> None:
    async with serving(TOKENS) as api:
        status, document, answered = await api.call("GET", "/v1/things", headers=headers)
        assert (status, document["code"]) == (401, "unauthorized")
        assert answered["WWW-Authenticate"].startswith('Bearer realm="vault-stream"')


@pytest.mark.parametrize("token", ["admin-token", "wrong"])
async def test_a_token_without_its_scheme_is_told_what_is_missing_and_not_whether_it_is_right(token: str) -> None:
    async with serving(TOKENS) as api:
        status, document, _ = await api.call("GET", "/v1/things", headers={"Authorization": token})
        assert (status, document["detail"]) == (
            401,
            "In front of the token `Bearer ` is missing: send Authorization: Bearer <token>.",
        )
        for other in ("Bearer", f"Basic {token}"):
            _, document, _ = await api.call("GET", "/v1/things", headers={"Authorization": other})
            assert document["detail"] == "The token is not known here."


async def test_two_authorization_headers_are_refused() -> None:
    async with serving(TOKENS) as api:
        twice = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer admin-token")]
        assert (await api.call("GET", "/v1/things", headers=twice))[0] == 401


async def test_a_named_token_is_known_by_its_name() -> None:
    async with serving(TOKENS) as api:
        for token, name in (("admin-token", "admin"), ("viewer-token", "viewer"), ("ci-token", "ci")):
            _, document, _ = await api.call("GET", "/v1/things", headers={"Authorization": f"bearer {token}"})
            assert document["who"] == name


async def test_tokens_can_change_while_it_runs() -> None:
    async with serving(TOKENS) as api:
        api.server.use_tokens(ApiSettings(admin_token="next"))
        assert (await api.call("GET", "/v1/things", headers=ADMIN))[0] == 401
        assert (await api.call("GET", "/v1/things", headers={"Authorization": "Bearer next"}))[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/health", "/health/live", "/health/ready"])
async def test_health_and_metrics_need_no_token(path: str) -> None:
    async with serving(TOKENS) as api:
        # The heartbeat was never started and is young: alive. No checks: healthy.
        assert (await api.call("GET", path, headers={"Host": "worker-0.example"}))[0] == 200


# --- Without tokens: this machine only, and no web page on it


@pytest.mark.parametrize("host", ["localhost", "localhost:8088", "127.0.0.1", "[::1]:8088"])
async def test_without_tokens_a_loopback_name_is_answered(host: str) -> None:
    async with serving() as api:
        status, document, _ = await api.call("GET", "/v1/things", headers={"Host": host})
        assert (status, document["who"]) == (200, "local")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8088", "localhost.evil.example", "10.0.0.1", "[::1", ""]
)
async def test_without_tokens_another_host_is_refused(host: str) -> None:
    async with serving() as api:
        status, document, _ = await api.call("GET", "/v1/things", headers={"Host": host})
        assert (status, document["code"]) == (403, "forbidden_host")


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null", "http://127.0.0.1"])
async def test_without_tokens_a_foreign_origin_is_refused(origin: str) -> None:
    async with serving() as api:
        status, document, _ = await api.call("POST", "/v1/things", headers={"Origin": origin}, json={})
        assert (status, document["code"]) == (403, "forbidden_origin")


async def test_without_tokens_our_own_origin_is_let_through() -> None:
    async with serving() as api:
        origin = f"http://127.0.0.1:{api.server.port}"
        assert (await api.call("POST", "/v1/things", headers={"Origin": origin}, json={}))[0] == 201


def test_without_tokens_it_does_not_listen_elsewhere() -> None:
    with pytest.raises(ValueError, match="loopback"):
        WebServer(Settings(web_host="0.0.0.0"), [])


async def test_tokens_cannot_be_taken_away_from_a_listener_that_is_reachable() -> None:
    server = WebServer(Settings(web_host="0.0.0.0", api=TOKENS), [])
    with pytest.raises(ValueError, match="loopback"):
        server.use_tokens(ApiSettings())
