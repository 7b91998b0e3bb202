import json
from pathlib import Path

import pytest

from app.settings import DEFAULT, VARIABLES, load_settings
from tests.support.settings import KEY, SHA256, load, refused


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load()
    assert settings.brokers == "localhost:9092"
    assert (settings.app_id, settings.topic_prefix, settings.topic_layout) == ("vault-stream", "vault", "per_type")
    assert (settings.partitions, settings.replication) == (12, 1)
    assert settings.data_dir == Path(".vault-stream")
    assert (settings.web_host, settings.web_port, settings.stats_port) == ("127.0.0.1", 8088, 6066)
    assert settings.public_url == settings.api.url == "http://127.0.0.1:8088"
    assert (settings.checkpoint_interval_s, settings.session_timeout_s) == (0.2, 10)
    webhooks = settings.webhooks
    assert webhooks.retry_schedule_s == (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert (webhooks.timeout_s, webhooks.max_concurrent, webhooks.max_in_flight) == (15, 256, 32)
    assert (webhooks.pace_after_failures, webhooks.pace_after_s, webhooks.pace_max_gap_s) == (10, 10, 30)
    assert (webhooks.history_ttl_s, webhooks.failed_ttl_s) == (86400, 604800)
    assert (webhooks.disable_after_s, webhooks.max_age_s) == (432000, 604800)
    assert (webhooks.allow_http, webhooks.allow_targets, webhooks.encryption_keys) == (False, (), ())
    governance = settings.governance
    assert (governance.buffer_size, governance.buffer_bytes, governance.flush_interval_s) == (100, 1024 * 1024, 5)
    assert governance.retention_d == 365
    assert (settings.policy.dialect, settings.policy.audit, settings.policy.max_clock_skew_s) == ("vault", "async", 2)
    assert (settings.policy.cache_ttl_s, settings.policy.deny_ttl_s) == (300, 30)
    assert (settings.registry.sync_mode, settings.registry.sync_interval_s) == ("push", 60)
    timeouts = [upstream.timeout_s for upstream in (governance, settings.policy, settings.registry)]
    assert timeouts == [30, 5, 10]
    assert (settings.log.format, settings.log.level, settings.log.output) == ("json", "info", "stdout")
    assert (settings.tracing.service_name, settings.tracing.sample_ratio) == ("vault-stream", 1)


def test_nested_groups_use_two_underscores() -> None:
    settings = load(WEBHOOKS__TIMEOUT_S="3.5", POLICY__PATH_EVALUATE="/evaluate", KAFKA__SECURITY_PROTOCOL="SSL")
    assert settings.webhooks.timeout_s == 3.5
    assert settings.policy.path_evaluate == "/evaluate"
    assert settings.kafka.security_protocol == "SSL"


def test_an_empty_value_is_the_same_as_unset() -> None:
    assert load(WEB_PORT="", PUBLIC_URL="").web_port == 8088
    Path(".env").write_text("VAULT_STREAM_WEB_PORT=9000\n")
    assert load(WEB_PORT="").web_port == 9000


def test_variables_of_other_programs_are_left_alone() -> None:
    assert load_settings({"VAULT_ADDR": "x", "PATH": "y"}).web_port == 8088


@pytest.mark.parametrize(
    "name",
    ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8088_TCP", "PORT_8088_TCP_ADDR"],
)
def test_names_that_kubernetes_injects_are_ignored(name: str) -> None:
    assert load(**{name: "tcp://10.0.0.1:8088"}).sources == {}


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    assert refused(KAFKA__BROKERS="k:9092") == (
        "VAULT_STREAM_KAFKA__BROKERS: no such setting; did you mean VAULT_STREAM_BROKERS?",
    )
    assert refused(WEB_PROT="1") == ("VAULT_STREAM_WEB_PROT: no such setting; did you mean VAULT_STREAM_WEB_PORT?",)
    assert "no such setting; unset it" in refused(QQQQ="1")[0]


def test_every_problem_has_its_own_line_and_names_its_variable() -> None:
    problems = refused(WEB_PORT="abc", PARTITIONS="0", NONSENSE="1", WEB_HOST="0.0.0.0")
    assert [problem.split(":")[0] for problem in sorted(problems)] == [
        "VAULT_STREAM_NONSENSE",
        "VAULT_STREAM_PARTITIONS",
        "VAULT_STREAM_PUBLIC_URL",
        "VAULT_STREAM_WEB_HOST",
        "VAULT_STREAM_WEB_PORT",
    ]
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "text", "must"),
    [
        ("WEB_PORT", "many", "valid integer"),
        ("WEB_PORT", "65536", "less than or equal to 65535"),
        ("PARTITIONS", "0", "greater than or equal to 1"),
        ("WEBHOOKS__TIMEOUT_S", "nan", "finite"),
        ("WEBHOOKS__ALLOW_HTTP", "perhaps", "valid boolean"),
        ("TOPIC_LAYOUT", "both", "'per_type' or 'single'"),
        ("TOPIC_PREFIX", "a/b", "letters"),
        ("BROKERS", "localhost", "host:port"),
        ("BROKERS", "a:1,b", "host:port"),
        ("WEBHOOKS__RETRY_SCHEDULE_S", "0, 5", "JSON list"),
        ("WEBHOOKS__RETRY_SCHEDULE_S", "[]", "at least 1 item"),
        ("WEBHOOKS__RETRY_SCHEDULE_S", '["5"]', "[0] must be a valid number"),
        ("WEBHOOKS__RETRY_SCHEDULE_S", "[-1]", "[0] must be greater"),
        ("WEBHOOKS__ALLOW_TARGETS", '["10.0.0.1/8"]', "no host bits"),
        *(
            ("WEBHOOKS__ORIGIN", text, "must be a DNS name, as in vault.example.com: no scheme, port or path")
            for text in (
                "https://a.example",
                "a.example:443",
                "a.example/",
                "a.example.",
                "a..b",
                "-a",
                "a_b",
                "10.0.0.1",
                "::1",
                "a b",
                "größe.example",
                "127.1",
                "256.1.1.1",
                "2130706433",
                "0x7f.1",
                "127.0.0.0x1",
                "a.0X",
                "a" * 64,
                ".".join(["a" * 49] * 6),
            )
        ),
        ("WEBHOOKS__ENCRYPTION_KEYS", '["k1:c2hvcnQ="]', "base64 of 32 bytes"),
        ("WEBHOOKS__ENCRYPTION_KEYS", json.dumps([f"k:{KEY}", f"k:{KEY}"]), "its own kid"),
        ("WEBHOOKS__SIGNING_KEYS", json.dumps([f"k:{KEY}"]), "whsk_"),
        ("GOVERNANCE__ENDPOINT", "ftp://x", "http or https"),
        ("GOVERNANCE__ENDPOINT", "https://user:pass@x", "without user name"),
        ("REGISTRY__PATH_DATASET", "/datasets", "exactly {id}"),
        ("POLICY__AUTH_HEADER", "a b", "HTTP header"),
        ("KAFKA__SSL_CA", "/does/not/exist", "file that exists"),
        ("SECRETS_DIR", "/does/not/exist", "folder that exists"),
        ("LOG__LEVEL", "loud", "one of debug, info"),
        ("LOG__OUTPUT", "syslog", "file:PATH"),
        ("TRACING__SAMPLE_RATIO", "2", "less than or equal to 1"),
        ("API__TOKENS", '[{"name":"ci","role":"root","sha256":"00"}]', "[0].role must be 'viewer' or 'admin'"),
        ("API__ADMIN_TOKEN", "two words", "without spaces"),
    ],
)
def test_a_wrong_type_or_a_value_out_of_range_is_refused(name: str, text: str, must: str) -> None:
    problems = refused(**{name: text})
    assert all(problem.startswith(f"VAULT_STREAM_{name}: ") for problem in problems)
    assert must in problems[0]


def test_no_error_shows_a_value() -> None:
    problems = refused(
        API__ADMIN_TOKEN="hunter2 hunter2",
        WEBHOOKS__ENCRYPTION_KEYS='["hunter2"]',
        WEB_PORT="hunter2",
        HUNTER="hunter2",
    )
    assert "hunter2" not in " ".join(problems)


def test_no_repr_shows_a_secret() -> None:
    settings = load(
        API__ADMIN_TOKEN="hunter2",
        POLICY__TOKEN="hunter2",
        POLICY__PROXY="http://u:hunter2@proxy:3128",
        WEBHOOKS__ENCRYPTION_KEYS=json.dumps([f"k:{KEY}"]),
        API__TOKENS=json.dumps([{"name": "ci", "role": "admin", "sha256": SHA256}]),
    )
    assert settings.api.admin_token is not None
    assert settings.api.admin_token.get_secret_value() == "hunter2"
    assert all(secret not in repr(settings) for secret in ("hunter2", KEY, SHA256))


def test_the_linear_schedule_of_the_source_document_is_accepted() -> None:
    settings = load(WEBHOOKS__MAX_RETRIES="4", WEBHOOKS__RETRY_DELAY_S="1.5")
    assert settings.webhooks.retry_schedule_s == (0, 1.5, 3, 4.5)


def test_both_kinds_of_schedule_together_are_refused() -> None:
    problems = refused(WEBHOOKS__RETRY_SCHEDULE_S="[0, 1]", WEBHOOKS__MAX_RETRIES="4", WEBHOOKS__RETRY_DELAY_S="1")
    assert len(problems) == 1
    assert "cannot be combined with WEBHOOKS__MAX_RETRIES" in problems[0]


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("POLICY__IDEMPOTENCY_HEADER", "authorization", "another header than POLICY__AUTH_HEADER"),
        ("GOVERNANCE__BATCH_LAST_HEADER", "X-BATCH-FIRST-OFFSET", "another header than GOVERNANCE__BATCH_FIRST_HEADER"),
        ("REGISTRY__IDEMPOTENCY_HEADER", "Content-Type", "no header of HTTP itself"),
    ],
)
def test_a_header_that_has_another_meaning_is_refused(name: str, value: str, must: str) -> None:
    (problem,) = refused(**{name: value})
    assert problem.startswith(f"VAULT_STREAM_{name}: ")
    assert must in problem


def test_half_a_linear_schedule_is_refused() -> None:
    assert refused(WEBHOOKS__MAX_RETRIES="4") == (
        "VAULT_STREAM_WEBHOOKS__RETRY_DELAY_S: must be set together with WEBHOOKS__MAX_RETRIES",
    )


@pytest.mark.parametrize("name", ["WEBHOOKS__HISTORY_TTL_S", "WEBHOOKS__FAILED_TTL_S"])
def test_a_ttl_below_twice_the_timeout_is_refused(name: str) -> None:
    assert load(**{name: "20", "WEBHOOKS__TIMEOUT_S": "10"})
    assert "at least twice WEBHOOKS__TIMEOUT_S, 20" in refused(**{name: "19", "WEBHOOKS__TIMEOUT_S": "10"})[0]


def test_a_webhook_may_take_at_most_half_of_the_worker() -> None:
    assert load(WEBHOOKS__MAX_CONCURRENT="64", WEBHOOKS__MAX_IN_FLIGHT="32")
    problems = refused(WEBHOOKS__MAX_CONCURRENT="64", WEBHOOKS__MAX_IN_FLIGHT="33")
    assert problems == ("VAULT_STREAM_WEBHOOKS__MAX_IN_FLIGHT: must be at most half of WEBHOOKS__MAX_CONCURRENT, 32",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_loopback_needs_no_token(host: str) -> None:
    assert load(WEB_HOST=host).api.open


@pytest.mark.parametrize("host", ["10.0.0.4", "worker-0.example"])
def test_listening_elsewhere_without_tokens_is_refused(host: str) -> None:
    assert "must be a loopback address unless API__ADMIN_TOKEN" in refused(WEB_HOST=host)[0]
    assert load(WEB_HOST=host, API__VIEWER_TOKEN="v").web_host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_host_needs_a_public_url(host: str) -> None:
    problems = refused(WEB_HOST=host, API__ADMIN_TOKEN="t")
    assert [problem.split(":")[0] for problem in problems] == ["VAULT_STREAM_PUBLIC_URL"]
    settings = load(WEB_HOST=host, API__ADMIN_TOKEN="t", PUBLIC_URL="http://worker-0:8088/")
    assert settings.public_url == "http://worker-0:8088"
    assert settings.api.url in {"http://127.0.0.1:8088", "http://[::1]:8088"}


def test_an_ipv6_listener_has_brackets_in_its_url() -> None:
    assert load(WEB_HOST="::1").public_url == "http://[::1]:8088"


def test_receivers_are_told_one_name_for_all_workers_or_the_host_of_each() -> None:
    assert load().webhooks.origin == "127.0.0.1"
    assert load(PUBLIC_URL="http://worker-0:8088").webhooks.origin == "worker-0"
    assert load(PUBLIC_URL="http://worker-0:8088", WEBHOOKS__ORIGIN="vault-1.Example.com").webhooks.origin == (
        "vault-1.Example.com"
    )


@pytest.mark.parametrize("name", ["cafe.de", "0xa.example", "1.2.example", "a1", "x7f", "127.0.0.1.example"])
def test_a_name_that_only_looks_like_a_number_is_a_name(name: str) -> None:
    assert load(WEBHOOKS__ORIGIN=name).webhooks.origin == name


def test_receivers_are_told_an_international_host_in_its_ascii_form() -> None:
    assert load(PUBLIC_URL="https://Bücher.example:8088").webhooks.origin == "xn--bcher-kva.example"
    assert load(PUBLIC_URL="http://[fe80::1]:8088").webhooks.origin == "fe80::1"


@pytest.mark.parametrize("host", ["a..ü", "ü" * 64, "a..b", "a,b", "-a", "x" * 64])
def test_a_url_whose_host_dns_cannot_have_is_refused(host: str) -> None:
    assert refused(PUBLIC_URL=f"http://{host}:8088") == (
        "VAULT_STREAM_PUBLIC_URL: must be an http or https URL without user name, query and fragment",
    )


def test_admin_and_viewer_must_not_share_a_token() -> None:
    assert "must differ" in refused(API__ADMIN_TOKEN="same", API__VIEWER_TOKEN="same")[0]


def test_named_tokens_are_told_apart() -> None:
    twice = [{"name": "ci", "role": "viewer", "sha256": SHA256}] * 2
    assert len(refused(API__TOKENS=json.dumps(twice))) == 2


def test_sasl_is_asked_for_whole_and_never_ignored() -> None:
    assert len(refused(KAFKA__SECURITY_PROTOCOL="SASL_SSL")) == 3
    assert "has no effect" in refused(KAFKA__SASL_PASSWORD="p")[0]
    kafka = load(
        KAFKA__SECURITY_PROTOCOL="SASL_SSL",
        KAFKA__SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA__SASL_USERNAME="u",
        KAFKA__SASL_PASSWORD="p",
    ).kafka
    assert kafka.sasl_password is not None


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("x")
    assert refused(REGISTRY__SSL_CERT=str(pem)) == (
        "VAULT_STREAM_REGISTRY__SSL_KEY: must be set together with REGISTRY__SSL_CERT",
    )


def test_a_fault_is_accepted_only_when_faults_are_allowed() -> None:
    assert "VAULT_STREAM_FAULTS_ALLOWED=1" in refused(FAULT="checkpoint:sent:2:kill")[0]
    assert load(FAULT="checkpoint:sent:2:kill", FAULTS_ALLOWED="1").fault == "checkpoint:sent:2:kill"


def test_every_variable_can_be_shown_with_secrets_masked() -> None:
    settings = load(
        API__ADMIN_TOKEN="hunter2",
        WEBHOOKS__ENCRYPTION_KEYS=json.dumps([f"k:{KEY}"]),
        API__TOKENS=json.dumps([{"name": "ci", "role": "admin", "sha256": SHA256}]),
    )
    shown = {variable.name: variable.shown(settings) for variable in VARIABLES}
    assert shown["VAULT_STREAM_API__ADMIN_TOKEN"] == "********"
    assert shown["VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS"] == ["********"]
    assert shown["VAULT_STREAM_API__TOKENS"] == [{"name": "ci", "role": "admin", "sha256": "********"}]
    assert shown["VAULT_STREAM_API__VIEWER_TOKEN"] is None
    assert all(secret not in json.dumps(shown) for secret in ("hunter2", KEY, SHA256))
    assert settings.sources.get("VAULT_STREAM_BROKERS", DEFAULT) == "default"
