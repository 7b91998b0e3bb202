"""Who may call what (contracts 8.3, last paragraph).

With tokens: `Authorization: Bearer <token>`; a viewer reads, an admin writes. Without any: this machine only, and no
web page on it, which a browser would let send requests to loopback. So the Host must be a loopback name (against
rebinding of names), and an Origin must be our own. That bodies must be JSON closes the rest, as no page can send JSON
elsewhere without asking first.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from app.observability.logging import USER_ID
from app.settings.fields import is_loopback
from app.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.settings import ApiSettings

__all__ = ["Authenticator", "Principal", "Role", "principal_of", "public", "reads"]

HandlerT = TypeVar("HandlerT", bound="Callable[..., Any]")

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NEEDS: Final = "_vault_stream_needs"
_CHALLENGE: Final = 'Bearer realm="vault-stream"'


class Role(IntEnum):
    """What a caller may do; each includes the ones below."""

    PUBLIC = 0
    VIEWER = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the name of the token (`admin` and `viewer` for the two unnamed ones, `local` without tokens)."""

    name: str
    role: Role


_PRINCIPAL: Final = web.RequestKey("principal", Principal)


def public(handler: HandlerT) -> HandlerT:
    """Mark a handler that needs no token, such as health."""
    setattr(handler, _NEEDS, Role.PUBLIC)
    return handler


def reads(handler: HandlerT) -> HandlerT:
    """Mark a handler that changes nothing although its method is not GET, such as a question in a body."""
    setattr(handler, _NEEDS, Role.VIEWER)
    return handler


def needed_role(request: web.Request) -> Role:
    """What the matched route asks for: its mark, else a viewer for safe methods and an admin for all others."""
    default = Role.VIEWER if request.method in _SAFE_METHODS else Role.ADMIN
    return Role(getattr(request.match_info.handler, _NEEDS, default))


def principal_of(request: web.Request) -> Principal:
    """Who made a request that was let through.

    Raises:
        KeyError: The route is public, so nobody was asked.
    """
    return request[_PRINCIPAL]


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    principal: Principal


class Authenticator:
    """Tells callers apart by their tokens, of which it keeps digests only."""

    def __init__(self, api: ApiSettings) -> None:
        known = [
            _Known(_digest(token.get_secret_value()), Principal(role.name.lower(), role))
            for token, role in ((api.admin_token, Role.ADMIN), (api.viewer_token, Role.VIEWER))
            if token is not None
        ]
        known += [
            _Known(bytes.fromhex(token.sha256), Principal(token.name, Role[token.role.upper()])) for token in api.tokens
        ]
        self._known = tuple(known)

    def admit(self, request: web.Request) -> None:
        """Let a request through, with its principal on it.

        Raises:
            Problem: 401 without a known token, 403 if it may not do this, or if the loopback rule forbids it.
        """
        needed = needed_role(request)
        if needed is Role.PUBLIC:
            return
        principal = self._identified(request) if self._known else _local(request)
        USER_ID.set(principal.role.name.lower())
        if principal.role < needed:
            raise Problem(403, "forbidden", "This needs an admin token; a viewer token only reads.")
        request[_PRINCIPAL] = principal

    def _identified(self, request: web.Request) -> Principal:
        given = request.headers.getall("Authorization", [])
        if not given:
            raise Problem(
                401,
                "unauthorized",
                "Send the header Authorization: Bearer <token>.",
                headers={"WWW-Authenticate": _CHALLENGE},
            )
        scheme, _, token = given[0].partition(" ")
        found: Principal | None = None
        if len(given) == 1 and scheme.lower() == "bearer":
            digest = _digest(token.strip())
            # All are compared, each in constant time: the answer's time tells nothing about which one came close.
            for known in self._known:
                if hmac.compare_digest(known.digest, digest):
                    found = known.principal
        if found is None:
            detail = "The token is not known here."
            if len(given) == 1 and not token and scheme.lower() != "bearer":
                # Whether it would be known is not said.
                detail = "In front of the token `Bearer ` is missing: send Authorization: Bearer <token>."
            raise Problem(
                401,
                "unauthorized",
                detail,
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
            )
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _local(request: web.Request) -> Principal:
    """The loopback rule, which stands in for a token where none is configured."""
    host = request.headers.get("Host", "")
    if not _is_this_machine(host):
        raise Problem(
            403,
            "forbidden_host",
            "Without tokens the API answers to loopback names only; use localhost, or configure API__ADMIN_TOKEN.",
        )
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() != f"{request.scheme}://{host}".lower():
        raise Problem(
            403,
            "forbidden_origin",
            "Without tokens no other web page may call the API; configure API__ADMIN_TOKEN and send it.",
        )
    return Principal("local", Role.ADMIN)


@lru_cache(maxsize=64)
def _is_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
