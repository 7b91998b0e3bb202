import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from app.cli.api import ApiClient, ApiError
from app.cli.output import print_table
from app.settings import ApiSettings, Settings
from tests.support.broken_answers import answering_once


class Answering(BaseHTTPRequestHandler):
    answer: ClassVar[tuple[int, dict[str, str], bytes]] = (200, {}, b"{}")
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, dict(self.headers), body))
        status, headers, content = Answering.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815  # the names that http.server looks for

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def client() -> Iterator[ApiClient]:
    Answering.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield ApiClient(f"http://127.0.0.1:{server.server_port}", "hunter2")
        finally:
            server.shutdown()
            thread.join()


def answers(status: int, document: Any = None, headers: dict[str, str] | None = None) -> None:
    Answering.answer = (status, headers or {}, b"" if document is None else json.dumps(document).encode())


def test_a_call_sends_method_query_body_and_token(client: ApiClient) -> None:
    answers(201, {"id": "wh_1"})
    assert client.call("POST", "/v1/webhooks", json={"url": "x"}, params={"a": "1 2", "b": None}) == {"id": "wh_1"}
    ((method, path, headers, body),) = Answering.asked
    assert (method, path, json.loads(body)) == ("POST", "/v1/webhooks?a=1+2", {"url": "x"})
    assert headers["Authorization"] == "Bearer hunter2"
    assert headers["Content-Type"] == "application/json"


def test_an_answer_without_body_is_none(client: ApiClient) -> None:
    answers(204)
    assert client.call("DELETE", "/v1/webhooks/wh_1") is None


def test_a_problem_document_becomes_one_line(client: ApiClient) -> None:
    document = {
        "status": 422,
        "code": "invalid",
        "detail": "The body is not usable.",
        "errors": [{"field": "/url", "code": "insecure_url", "message": "must be https"}],
    }
    answers(422, document, {"Retry-After": "3"})
    with pytest.raises(ApiError) as caught:
        client.call("POST", "/v1/webhooks", json={})
    error = caught.value
    assert error.format_message() == "422 invalid: The body is not usable; /url: must be https; try again in 3 s"
    assert (error.status, error.code, error.exit_code) == (422, "invalid", 1)


def test_where_only_a_setting_helps_nobody_is_told_to_try_again(client: ApiClient) -> None:
    detail = "There is no dataset registry to tell or ask: set VAULT_STREAM_REGISTRY__ENDPOINT and restart the workers."
    problem = {"code": "registry_off", "detail": detail, "setting": "VAULT_STREAM_REGISTRY__ENDPOINT"}
    answers(503, problem, {"Retry-After": "10"})
    with pytest.raises(ApiError) as caught:
        client.call("POST", "/v1/registry/sync")
    assert caught.value.format_message() == f"503 registry_off: {detail}"


def test_a_detail_that_happens_to_name_a_setting_does_not_keep_anybody_from_trying_again(client: ApiClient) -> None:
    answers(503, {"code": "slow", "detail": "It is late; or set VAULT_STREAM_SOMETHING."}, {"Retry-After": "10"})
    with pytest.raises(ApiError, match="; try again in 10 s"):
        client.call("POST", "/v1/registry/sync")


def test_a_field_that_the_detail_names_already_is_not_said_twice(client: ApiClient) -> None:
    errors = [{"field": "/url", "code": "insecure_url", "message": "must be https"}]
    answers(422, {"code": "insecure_url", "detail": "/url: must be https", "errors": errors})
    with pytest.raises(ApiError) as caught:
        client.call("POST", "/v1/webhooks", json={})
    assert caught.value.format_message() == "422 insecure_url: /url: must be https"


def test_an_error_that_is_no_problem_document_says_its_status(client: ApiClient) -> None:
    Answering.answer = (502, {}, b"<html>")
    with pytest.raises(ApiError, match="answered 502"):
        client.call("GET", "/v1/webhooks")


def test_a_redirect_is_not_followed_with_the_token(client: ApiClient) -> None:
    answers(302, None, {"Location": f"{client.url}/elsewhere"})
    with pytest.raises(ApiError, match="answered 302"):
        client.call("GET", "/v1/webhooks")
    assert len(Answering.asked) == 1


def test_an_answer_that_is_no_json_is_an_error(client: ApiClient) -> None:
    Answering.answer = (200, {}, b"hello")
    with pytest.raises(ApiError, match="no JSON"):
        client.call("GET", "/v1/webhooks")


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{", None, "did not answer"),
        (b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", None, "did not answer"),
        (b"junk\r\n\r\n", None, "did not answer"),
        (b"", None, "did not answer"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\n{", 503, "answered 503"),
        (b'HTTP/1.1 409 No\r\n\r\n{"code":"disabled","detail":"x","errors":["y"]}', 409, "409 disabled: x"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000, None, "no JSON"),
    ],
)
def test_an_answer_that_breaks_off_or_is_none_is_an_error(answer: bytes, status: int | None, told: str) -> None:
    with answering_once(answer) as url, pytest.raises(ApiError, match=told) as caught:
        ApiClient(url).call("POST", "/v1/dead-letters/resend", json={})
    assert caught.value.status == status


def test_a_worker_that_is_not_there_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ApiError, match="is a worker running there") as caught:
        ApiClient(f"http://127.0.0.1:{port}").call("GET", "/v1/webhooks")
    assert caught.value.status is None


def test_the_client_takes_url_and_strongest_token_from_the_settings() -> None:
    settings = Settings(api=ApiSettings(admin_token="a", viewer_token="v", url="https://vault.example/base/"))
    assert ApiClient.of(settings) == ApiClient("https://vault.example/base", "a")
    assert ApiClient.of(Settings(api=ApiSettings(viewer_token="v"))).token == "v"
    assert "hunter2" not in repr(ApiClient("http://x", "hunter2"))


def test_a_table_is_aligned_and_shows_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "value"), [("a", None), ("bcd", [1, "x"]), ("e", "new\nline")])
    assert capsys.readouterr().out.splitlines() == ["ID   VALUE", "a    -", 'bcd  [1,"x"]', "e    new\\u000aline"]
