"""What is said of an error that means no, and for how long."""

import logging
import ssl

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.protocol.admin import SaslAuthenticateRequest
from confluent_kafka import KafkaError, KafkaException

from app.brokers import Refusals, explain, overhear
from app.brokers.refusals import LASTS_S


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def untrusted(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "an alert")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (kafka_errors.SaslAuthenticationFailed("bad"), ["KAFKA__SASL_PASSWORD", "KAFKA__SASL_USERNAME"]),
        (kafka_errors.UnsupportedSaslMechanismError("x"), ["KAFKA__SASL_MECHANISM"]),
        (untrusted(19, "self-signed certificate in certificate chain"), ["KAFKA__SSL_CA", "self-signed"]),
        (untrusted(64, "IP address mismatch"), ["BROKERS", "advertised.listeners"]),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), ["KAFKA__SSL_CERT", "KAFKA__SSL_KEY"]),
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), ["KAFKA__SSL_CERT"]),
        (alert("WRONG_VERSION_NUMBER"), ["KAFKA__SECURITY_PROTOCOL"]),
        (kafka_errors.TopicAuthorizationFailedError("vault.events"), ["Read on topic vault.events", "topics acls"]),
        (kafka_errors.GroupAuthorizationFailedError("g"), ["Read on group g"]),
        (kafka_errors.TransactionalIdAuthorizationFailed("app-3"), ["Write on transactionalId app-3"]),
        (kafka_errors.ClusterAuthorizationFailedError(), ["Write on any topic"]),
        (KafkaException(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials")), ["KAFKA__SASL_PASSWORD"]),
        (KafkaException(KafkaError(KafkaError._SSL, "certificate verify failed: broker")), ["KAFKA__SSL_CA"]),
        (
            KafkaException(KafkaError(KafkaError._TRANSPORT, "error:0A:SSL routines::bad: SSL alert number 42")),
            ["KAFKA__SSL_CERT"],
        ),
        (
            KafkaException(KafkaError(KafkaError._TRANSPORT, "SSL closed: connecting to a PLAINTEXT broker listener?")),
            ["KAFKA__SECURITY_PROTOCOL"],
        ),
        (KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)), ["Read on a group"]),
    ],
)
def test_a_refusal_names_the_setting_or_the_right(error: BaseException, words: list[str]) -> None:
    line = explain(error)

    assert line is not None
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (62, "Hostname mismatch, certificate is not valid for 'kafka-0.internal.example'."),
        (64, "IP address mismatch, certificate is not valid for '10.1.2.3'."),
    ],
)
def test_a_certificate_for_another_host_names_the_setting_and_not_the_host(code: int, message: str) -> None:
    line = explain(untrusted(code, message))

    assert line is not None
    assert "BROKERS" in line
    assert [told for told in ("kafka-0", "internal", "10.1.2.3") if told in line] == []


@pytest.mark.parametrize(
    "error",
    [kafka_errors.KafkaConnectionError("closed"), OSError(111, "refused"), TimeoutError(), ValueError("x")],
)
def test_what_is_no_refusal_is_not_explained(error: BaseException) -> None:
    assert explain(error) is None


def test_the_reason_behind_an_error_counts_and_the_caller_knows_what_was_tried() -> None:
    outer = RuntimeError("not acknowledged")
    outer.__cause__ = kafka_errors.TopicAuthorizationFailedError("t")

    assert "Write on topic vault.quarantine" in str(explain(outer, "Write", "vault.quarantine"))


def test_one_right_that_is_missing_is_said_once_for_all_topics_and_clients(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(Clock())
    refusals.know("User:app", ("vault.", "vault-stream-"))
    with caplog.at_level(logging.INFO, "app.brokers"):
        for topic in ("vault.events", "vault.quarantine", "vault.events"):
            refusals.met(kafka_errors.TopicAuthorizationFailedError(topic))

    (line,) = caplog.messages
    assert line.startswith("Kafka refuses User:app: no right Read on topic vault.events (vault.*): add the ACL")
    assert refusals.current() == [line.removeprefix("Kafka refuses User:app: ")]


def test_another_right_is_another_line(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(Clock())
    refusals.know("User:app", ("vault.", "vault-stream-"))
    error = kafka_errors.TopicAuthorizationFailedError
    with caplog.at_level(logging.INFO, "app.brokers"):
        refusals.met(error("vault.events"), "Read")
        refusals.met(error("vault.events"), "Write")
        refusals.met(error("vault-stream-audit-changelog"), "Read")

    assert len(caplog.messages) == len(refusals.current()) == 3


def test_a_connection_that_is_not_made_has_the_reason_that_was_met_just_now() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    gone = kafka_errors.KafkaConnectionError("Unable to bootstrap")
    assert refusals.met(gone) is None
    line = refusals.met(kafka_errors.SaslAuthenticationFailed("x"))
    refusals.met(kafka_errors.TopicAuthorizationFailedError("t"))
    assert refusals.met(gone) == line
    assert refusals.met(OSError("another")) is None
    clock.now_s += 6
    assert refusals.met(gone) is None


def test_what_is_not_met_again_is_over_and_is_said_anew_when_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    with caplog.at_level(logging.INFO, "app.brokers"):
        refusals.met(kafka_errors.SaslAuthenticationFailed("x"))
        clock.now_s += LASTS_S - 1
        assert refusals.current()
        clock.now_s += 2
        assert refusals.current() == []
        refusals.met(kafka_errors.SaslAuthenticationFailed("x"))

    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]


def test_what_aiokafka_logs_of_a_refusal_is_heard_and_kept_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[BaseException] = []
    client, fetcher = logging.getLogger("aiokafka"), logging.getLogger("aiokafka.consumer.fetcher")
    refused = kafka_errors.SaslAuthenticationFailed("invalid credentials")
    with overhear(heard.append):
        client.error('Unable connect to "%s:%s": %s', "127.0.0.1", 9092, refused)
        client.error("Unable connect to node with id %s: %s", 1, OSError("refused"))
        fetcher.warning("Not authorized to read from topic %s.", "vault.events")
    client.error("Unable connect to node with id %s: %s", 1, refused)

    assert heard[0] is refused
    assert "Read on topic vault.events" in str(explain(heard[1]))
    assert len(heard) == 2
    assert [message.partition(" to ")[2] for message in caplog.messages] == [
        "node with id 1: refused",
        f"node with id 1: {refused}",
    ]


def test_the_request_that_holds_a_password_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    request = SaslAuthenticateRequest(b"\0app\0a-password").prepare({36: (0, 2)})
    with caplog.at_level(logging.DEBUG, "aiokafka.conn"), overhear(lambda _: None):
        logging.getLogger("aiokafka.conn").debug("Request to %s:%d %d: %s", "127.0.0.1", 9092, 1, request)
        logging.getLogger("aiokafka.conn").debug("Request to %s:%d %d: %s", "127.0.0.1", 9092, 2, "another")

    assert [record.args[2] for record in caplog.records if isinstance(record.args, tuple)] == [2]
