"""The commands' client of the API: a call is one request, an error is one line."""

from __future__ import annotations

import http.client
import json as json_codec
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click

from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

__all__ = ["ApiClient", "ApiError", "call"]

TIMEOUT_S: Final = 30.0
"""Above the 15 s that a change may wait for its effect, and the 10 s of a forward."""


class ApiError(click.ClickException):
    """The API refused, or could not be reached; `click` prints it as one line and exits with 1.

    Attributes:
        status: The HTTP status, None without an answer.
        code: The stable name of the problem, None without a problem document.
        document: The problem document, empty without one.
    """

    def __init__(self, message: str, status: int | None = None, document: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.document = dict(document or {})
        self.code = self.document.get("code")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token elsewhere."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ApiClient:
    """Calls of one worker's API.

    Attributes:
        url: Its base, without a slash at the end.
        token: Sent as bearer token; None where the API needs none.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> ApiClient:
        """The client that `API__URL` and the strongest configured token make."""
        token = settings.api.admin_token or settings.api.viewer_token
        return cls(settings.api.url, token.get_secret_value() if token else None)

    def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """Send one request.

        Args:
            method: An HTTP method.
            path: Begins with `/`, variable segments percent-encoded.
            json: The body; none if None.
            params: The query; those that are None are left out.
            headers: Further headers, such as `If-Match`.
            timeout_s: Of a silence.

        Returns:
            The JSON value of the answer, None if it has no body.

        Raises:
            ApiError: Any status but 2xx, no answer within 30 s, or an answer that is no JSON.
        """
        body = None if json is None else json_codec.dumps(json).encode()
        return self._send(self._request(method, path, body, params, headers), timeout_s)

    def send(self, method: str, path: str, body: bytes, content_type: str) -> Any:
        """Send one request with a body as it is; else as `call`."""
        return self._send(self._request(method, path, body, None, {"Content-Type": content_type}))

    def _send(self, request: urllib.request.Request, timeout_s: float = TIMEOUT_S) -> Any:
        # No proxy from the environment: the token must reach API__URL and nobody else.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
        try:
            with opener.open(request, timeout=timeout_s) as answer:
                return _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.headers, _body_of(error)) from None
        except urllib.error.URLError as error:
            raise ApiError(f"cannot reach the API at {self.url} ({_reason(error)}): {_HINT}") from None
        except (OSError, http.client.HTTPException) as error:  # also a timeout or an end while reading
            raise ApiError(f"the API at {self.url} did not answer ({_reason(error)}): {_HINT}") from None

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> urllib.request.Request:
        query = urlencode({name: value for name, value in (params or {}).items() if value is not None})
        sent = {"Accept": "application/json", **(headers or {})}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        # The scheme was checked when the settings were read: http or https.
        return urllib.request.Request(  # noqa: S310  # see above
            f"{self.url}{path}{'?' if query else ''}{query}", data=body, headers=sent, method=method
        )


_HINT: Final = "is a worker running there? Set VAULT_STREAM_API__URL"


def call(
    method: str,
    path: str,
    json: Any = None,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """`ApiClient.call` at the API of the settings.

    Raises:
        ApiError: As there.
        SettingsError: The settings cannot be used.
    """
    return ApiClient.of(load_settings()).call(method, path, json, params, headers, timeout_s)


def _body_of(error: urllib.error.HTTPError) -> bytes:
    """What came of it: the status says already whether it is a refusal."""
    try:
        return error.read()
    except (OSError, http.client.HTTPException):
        return b""


def _decoded(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json_codec.loads(body)
    except (ValueError, RecursionError):
        raise ApiError("the answer is no JSON: is something else listening at VAULT_STREAM_API__URL?") from None


def _refusal(status: int, headers: Message, body: bytes) -> ApiError:
    try:
        document = json_codec.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "code" not in document:
        told = f"the API answered {status} without saying why: is it a worker that listens at VAULT_STREAM_API__URL?"
        return ApiError(told, status)
    errors = document.get("errors")
    named = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    fields = [f"{error.get('field')}: {error.get('message')}" for error in named]
    detail = str(document.get("detail") or document.get("title"))
    # A detail that says it all already is not followed by the same words.
    parts = [detail, *(field for field in fields if field not in detail)]
    retry_after = headers.get("Retry-After")
    # Where a setting is what helps, time does not.
    if retry_after and "setting" not in document:
        parts.append(f"try again in {retry_after} s")
    if status == HTTPStatus.UNAUTHORIZED:
        parts.append("the command line takes it from VAULT_STREAM_API__ADMIN_TOKEN, or VAULT_STREAM_API__VIEWER_TOKEN")
    # Sentences that go on.
    told = "; ".join([*(part.removesuffix(".") for part in parts[:-1]), parts[-1]])
    return ApiError(f"{status} {document['code']}: {told}", status, document)


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
