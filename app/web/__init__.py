"""The HTTP API of a worker: listener, access rules, problem documents, and the routes of each part.

It listens from the start of the process, before Kafka is reached. Modules of routes hand over lists of
`aiohttp.web.RouteDef`; `WebServer` puts the rules of contracts 8.3 around them.

Errors: `Problem` is what a handler raises, and becomes an RFC 9457 document; `ListenError` (`PortInUse`) is what
`WebServer.start` raises.
"""

from app.web.auth import Principal, Role, principal_of, public, reads
from app.web.forward import Forwarder
from app.web.problems import FieldError, Problem
from app.web.requests import json_body, page_limit, query_of
from app.web.server import ListenError, PortInUse, WebServer

__all__ = [
    "FieldError",
    "Forwarder",
    "ListenError",
    "PortInUse",
    "Principal",
    "Problem",
    "Role",
    "WebServer",
    "json_body",
    "page_limit",
    "principal_of",
    "public",
    "query_of",
    "reads",
]
