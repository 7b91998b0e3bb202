"""What Kafka refuses: one line that names the setting or the right, said once, and shown for as long as it lasts.

aiokafka tells why a connection failed to its log alone, and each client of a worker meets the same refusal again and
again. So its log is overheard: what is explained here is taken out of it.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from aiokafka import errors as kafka_errors
from confluent_kafka import KafkaError, KafkaException

__all__ = ["LASTS_S", "REFUSALS", "Refusals", "explain", "missing_right", "overhear"]

log = logging.getLogger("app.brokers")

Key = tuple[str, str, str, frozenset[str]]

JUST_NOW_S: Final = 5.0
LASTS_S: Final = 15.0
"""Every client tries again sooner; so what was not met for that long is over."""

_OVERHEARD: Final = (
    "aiokafka",  # that of its client
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)
_LOGIN: Final = (
    "the login is refused: check KAFKA__SASL_USERNAME, KAFKA__SASL_PASSWORD and KAFKA__SASL_MECHANISM,"
    " or give the user this password at the brokers"
)
_MECHANISM: Final = "the brokers do not offer that login: check KAFKA__SASL_MECHANISM"
_UNKNOWN_CA: Final = (
    "the brokers' certificate is not trusted{}: set KAFKA__SSL_CA to the certificate of the authority that signed it"
)
_WRONG_NAME: Final = "the brokers' certificate is for another host: check BROKERS and the brokers' advertised.listeners"
_OUR_CERTIFICATE: Final = (
    "the brokers do not take our certificate, or want one: check KAFKA__SSL_CERT and KAFKA__SSL_KEY, and that the"
    " brokers trust its authority"
)
_NO_TLS: Final = "the brokers do not speak TLS there: check KAFKA__SECURITY_PROTOCOL and the port in BROKERS"
_SIGNS: Final = {
    # It does not tell an unknown authority from another host.
    "could not be verified": _UNKNOWN_CA.format(" (or not for the host in BROKERS)"),
    "certificate verify failed": _UNKNOWN_CA.format(" (or not for the host in BROKERS)"),
    "ssl alert number": _OUR_CERTIFICATE,
    "plaintext broker listener": _NO_TLS,
    "wrong version number": _NO_TLS,
}
"""What librdkafka writes of TLS."""
_HOST_MISMATCH: Final = frozenset({62, 63, 64})
"""OpenSSL's verification errors for a host name, an address of mail, an IP address that does not match."""

_DISCONNECTED: Final = (kafka_errors.KafkaConnectionError, kafka_errors.NodeNotReadyError)
_SASL: Final = (
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
)
_RIGHTS: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: kafka_errors.TopicAuthorizationFailedError,
    KafkaError.GROUP_AUTHORIZATION_FAILED: kafka_errors.GroupAuthorizationFailedError,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: kafka_errors.ClusterAuthorizationFailedError,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: kafka_errors.TransactionalIdAuthorizationFailed,
}
_KINDS: Final = {
    kafka_errors.TopicAuthorizationFailedError: ("Read", "topic"),
    kafka_errors.GroupAuthorizationFailedError: ("Read", "group"),
    kafka_errors.TransactionalIdAuthorizationFailed: ("Write", "transactionalId"),
}
_FIX: Final = "add the ACL (`vault-stream topics acls` prints all of them)"
_LINES: Final = {
    _SASL: _LOGIN,
    kafka_errors.UnsupportedSaslMechanismError: _MECHANISM,
    kafka_errors.ClusterAuthorizationFailedError: f"no right Write on any topic, so nothing can be written: {_FIX}",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is refused: a right on something, or what `line` says.

    Attributes:
        names: Of the topics, the group or the transactional id; none where nobody says.
    """

    line: str = ""
    operation: str = ""
    resource: str = ""
    names: tuple[str, ...] = ()

    def told(self, families: Sequence[str] = ()) -> str:
        """One line for a person; the right is named as the list of rights has it, where a family is known."""
        if self.line:
            return self.line
        if not self.names:
            return f"no right {self.operation} on a {self.resource}: {_FIX}"
        name, family = self.names[0], _family(self.names[0], families)
        of = "" if family == name else f" ({family})"
        return f"no right {self.operation} on {self.resource} {name}{of}: {_FIX}"

    def key(self, families: Sequence[str]) -> Key:
        """The same for all that one right would mend."""
        return self.line, self.operation, self.resource, frozenset(_family(name, families) for name in self.names)


def explain(error: BaseException | KafkaError, operation: str | None = None, name: str | None = None) -> str | None:
    """The line for an error that means that Kafka refuses us; None for every other error.

    Args:
        error: Of aiokafka, confluent_kafka or ssl, or one that was raised because of such a one.
        operation: What was tried: `Read`, `Write` ...; else what such an error usually means.
        name: On which topic, group or transactional id, where the error does not say so.
    """
    refusal = refusal_in(error, operation, name)
    return None if refusal is None else refusal.told()


def refusal_in(
    error: BaseException | KafkaError, operation: str | None = None, name: str | None = None
) -> Refusal | None:
    """See `explain`."""
    for cause in _causes(error):
        if (found := _explained(cause, operation, name)) is not None:
            return found
    return None


def missing_right(operation: str, resource: str, name: str) -> str:
    """The line for one right that is missing."""
    return Refusal("", operation, resource, (name,)).told()


def _family(name: str, families: Sequence[str]) -> str:
    return next((f"{family}*" for family in families if name.startswith(family)), name)


def _causes(error: BaseException | KafkaError) -> Iterator[BaseException | KafkaError]:
    seen: set[int] = set()
    cause: BaseException | KafkaError | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, KafkaException) and cause.args and isinstance(cause.args[0], KafkaError):
            yield cause.args[0]
        yield cause
        cause = (cause.__cause__ or cause.__context__) if isinstance(cause, BaseException) else None


def _explained(error: BaseException | KafkaError, operation: str | None, name: str | None) -> Refusal | None:
    if isinstance(error, KafkaError):
        return _of_librdkafka(error, operation, name)
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    for kinds, line in _LINES.items():
        if isinstance(error, kinds):
            return Refusal(line)
    for kind, (usual, resource) in _KINDS.items():
        if isinstance(error, kind):
            return Refusal("", operation or usual, resource, (name,) if name else _names(error))
    return None


def _names(error: BaseException) -> tuple[str, ...]:
    told = error.args[0] if error.args else None
    if isinstance(told, set | frozenset | list | tuple):
        return tuple(sorted(map(str, told)))
    return (str(told),) if told else ()


def _of_tls(error: ssl.SSLError) -> Refusal | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _HOST_MISMATCH:
            # Not in OpenSSL's words: they name the host, and whoever reads `/health` must not learn of it.
            return Refusal(_WRONG_NAME)
        return Refusal(_UNKNOWN_CA.format(f" ({error.verify_message.rstrip('.')})"))
    reason = error.reason or ""
    if "ALERT" in reason:
        return Refusal(_OUR_CERTIFICATE)
    return Refusal(_NO_TLS) if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"} else None


def _of_librdkafka(error: KafkaError, operation: str | None, name: str | None) -> Refusal | None:
    code, text = error.code(), error.str().lower()
    if code == KafkaError._AUTHENTICATION:  # noqa: SLF001  # librdkafka's public names of its own errors
        return Refusal(_MECHANISM if "unsupported" in text and "mechanism" in text else _LOGIN)
    if code in (KafkaError._SSL, KafkaError._TRANSPORT):  # noqa: SLF001  # see above
        for sign, line in _SIGNS.items():
            if sign in text:
                return Refusal(line)
    kind = _RIGHTS.get(code)
    return None if kind is None else _explained(kind(name or ""), operation, name)


class Refusals:
    """What is refused now.

    Args:
        monotonic_s: The clock.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._met: dict[Key, tuple[str, float]] = {}
        self._lock = Lock()
        self._principal = "User:ANONYMOUS"
        self._families: tuple[str, ...] = ()

    def know(self, principal: str, families: Sequence[str] = ()) -> None:
        """Who is refused, and the beginnings of names for which one right is given."""
        self._principal, self._families = principal, tuple(families)

    def met(
        self, error: BaseException | KafkaError, operation: str | None = None, name: str | None = None
    ) -> str | None:
        """Take note of an error, and say it if it is new; its line, or None if it is no refusal."""
        refusal = refusal_in(error, operation, name)
        if refusal is None:
            return self._behind(error)
        return self._note(refusal.key(self._families), refusal.told(self._families))

    def _behind(self, error: BaseException | KafkaError) -> str | None:
        """The refusal behind a missing connection: aiokafka told it to its log only, just now."""
        if not any(isinstance(cause, _DISCONNECTED) for cause in _causes(error)):
            return None
        since_s = self._monotonic_s() - JUST_NOW_S
        with self._lock:
            recent = [(at_s, line) for key, (line, at_s) in self._met.items() if not key[1] and at_s >= since_s]
        return max(recent)[1] if recent else None

    def say(self, line: str) -> None:
        """Take note of a refusal, and log it if it is new."""
        self._note(Refusal(line).key(()), line)

    def _note(self, key: Key, line: str) -> str:
        with self._lock:
            known = key in self._met
            line = self._met[key][0] if known else line
            self._met[key] = (line, self._monotonic_s())
        if not known:
            log.error("Kafka refuses %s: %s", self._principal, line)
        return line

    def current(self) -> list[str]:
        """What was met lately; what was not is said to be over."""
        now_s = self._monotonic_s()
        with self._lock:
            over = [(key, line) for key, (line, at_s) in self._met.items() if now_s - at_s > LASTS_S]
            for key, _ in over:
                del self._met[key]
            lasting = [line for line, _ in self._met.values()]
        for _, line in over:
            log.info("not met again for %.0f s: %s", LASTS_S, line)
        return lasting


REFUSALS: Final = Refusals()
"""Of this process, which speaks to one cluster."""


class _Ear(logging.Filter):
    """Takes out of aiokafka's log what is a refusal, and hands it on."""

    def __init__(self, heard: Callable[[BaseException], object]) -> None:
        super().__init__()
        self._heard = heard

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and any(_is_login(each) for each in record.args):
            # At debug level aiokafka writes each request down: with PLAIN, this one is the password.
            return False
        error = _error_in(record)
        if error is None or explain(error) is None:
            return True
        self._heard(error)
        return False


def _is_login(argument: object) -> bool:
    return type(argument).__name__.startswith(("SaslAuthenticateRequest", "SaslAuthenticateResponse"))


def _error_in(record: logging.LogRecord) -> BaseException | None:
    if record.exc_info and isinstance(record.exc_info[1], BaseException):
        return record.exc_info[1]
    if not isinstance(record.args, tuple):
        return None
    for argument in record.args:
        if isinstance(argument, BaseException):
            return argument
        if isinstance(argument, type) and issubclass(argument, kafka_errors.BrokerResponseError):
            named: BaseException = argument(record.args[0])
            return named
    if record.levelno >= logging.WARNING and "authorized" in str(record.msg) and record.args:
        # It is said of a topic, without the error: in metadata, where Describe is what is missing, or by a fetch.
        hidden: BaseException = kafka_errors.TopicAuthorizationFailedError(record.args[0])
        return hidden
    return None


@contextmanager
def overhear(heard: Callable[[BaseException], Any] = REFUSALS.met) -> Iterator[None]:
    """For as long as it lasts, hand what aiokafka logs of refusals to `heard`, and keep it out of the log."""
    ear = _Ear(heard)
    loggers = [logging.getLogger(name) for name in _OVERHEARD]
    for each in loggers:
        each.addFilter(ear)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(ear)
