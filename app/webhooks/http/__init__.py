"""An HTTP/1.1 client for requests whose receivers are not to be trusted, over the transports of the event loop.

What a general client can do and this one is not to: follow redirects, unpack, keep cookies, send a request twice, read
settings from the environment. `answers` reads bytes and knows no sockets; `connection` is one connection, `pool` those
that are kept, `dialling` how one comes about, `requests` the bytes that are sent.
"""

from app.webhooks.http.answers import Answer
from app.webhooks.http.dialling import Dialler, Proxy
from app.webhooks.http.errors import (
    AnswerTooLarge,
    ExchangeFailed,
    HungUp,
    MalformedAnswer,
    NameNotResolved,
    NotConnected,
    ProxyFailed,
)
from app.webhooks.http.pool import Pool
from app.webhooks.http.requests import Origin, Target, head_of, head_with

__all__ = [
    "Answer",
    "AnswerTooLarge",
    "Dialler",
    "ExchangeFailed",
    "HungUp",
    "MalformedAnswer",
    "NameNotResolved",
    "NotConnected",
    "Origin",
    "Pool",
    "Proxy",
    "ProxyFailed",
    "Target",
    "head_of",
    "head_with",
]
