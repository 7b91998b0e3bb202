import socket

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.observability.addresses import ADDRESS, unaddressed


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("10.1.2.3", "[address]"),
        ("connect to 10.1.2.3:9092 failed", "connect to [address] failed"),
        ("Cannot connect to host kafka:9092 ssl:default", "Cannot connect to host [address] ssl:default"),
        ("localhost:9092,b-2.example.com:9093", "[address],[address]"),
        ("Connect call failed ('127.0.0.1', 9092)", "Connect call failed [address]"),
        ("Connect call failed ('::1', 9092, 0, 0)", "Connect call failed [address]"),
        ("Unable to bootstrap from [('kafka-0.svc', 9092, <AddressFamily.AF_UNSPEC: 0>)]", None),
        ("http://user:hunter2@10.0.0.1/x?y=z failed", "[address] failed"),
        ("http://[fd00::1]:8088/v1 failed", "[address] failed"),
        ("[fd00::1]:9092 and fe80::1%eth0", "[address] and [address]"),
        ("2001:db8::8a2e:370:7334.", "[address]."),
        ("getaddrinfo failed for kafka-0.internal", "getaddrinfo failed for [address]"),
        (
            "Failed to resolve 'kafka-0': Name or service not known",
            "Failed to resolve [address]: Name or service not known",
        ),
        ("cannot resolve kafka-0.svc.cluster.local, again in 2 s", "cannot resolve [address], again in 2 s"),
        ("Hostname mismatch, certificate is not valid for 'kafka-0.internal'.", None),
        ("Cannot connect to host kafka-0.internal ssl:True [None]", "Cannot connect to host [address] ssl:True [None]"),
        ("hostname=kafka-0.internal", "hostname=[address]"),
    ],
)
def test_no_address_is_left(told: str, shown: str | None) -> None:
    if shown is not None:
        assert unaddressed(told) == shown
    assert not any(part in unaddressed(told) for part in ("kafka-0", "9092", "10.1", "fd00", "hunter2"))


@pytest.mark.parametrize(
    "told",
    [
        "number 3 is opening: restoring",
        "vault.llm-data-vault-dataset-created/3: offset 12 is not there any more",
        "router/3: 101 handler_error in a row",
        "at 12:30:45 on 2026-01-02, after 1.5 s",
        "the data of router was laid out for PARTITIONS=12 (rows version 1), not 4 (1)",
        "no heartbeat was answered within the session timeout",
        "1 of 3, 12,000 rows: about 20 s",
        "version 4.1.0",
        "no right Read on topic vault.events: add the ACL (`vault-stream topics acls` prints all of them)",
        "the brokers' certificate is for another host: check BROKERS and the brokers' advertised.listeners",
        "the certificate is not trusted (or not for the host in BROKERS): set KAFKA__SSL_CA",
        "there is no topic vault.llm-data-vault-dataset-created for vault.audit.records any more",
        "the host is away, getaddrinfo failed for it",
    ],
)
def test_what_is_no_address_stays(told: str) -> None:
    assert unaddressed(told) == told


def test_values_are_kept_but_for_their_texts() -> None:
    assert unaddressed({"a": [1, None, True, "b:1"], "c": {"d": ("10.0.0.1",)}}) == {
        "a": [1, None, True, ADDRESS],
        "c": {"d": [ADDRESS]},
    }


@given(
    st.ip_addresses(), st.integers(1, 65_535), st.sampled_from(["{}", "to {}:{p}", "('{}', {p})", "[{}]:{p}", "{}."])
)
def test_no_address_of_the_internet_protocol_is_left(address: object, port: int, form: str) -> None:
    text = str(address)
    assume(text != "::")
    if ":" in text and form == "to {}:{p}":
        form = "to [{}]:{p}"
    assert text not in unaddressed(form.format(text, p=port))


def test_what_this_system_says_of_a_refused_connection_names_nobody() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused") as refused:
            socket.create_connection(("127.0.0.1", taken.getsockname()[1]), 1)
    assert "127" not in unaddressed(repr(refused.value))
