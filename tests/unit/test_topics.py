from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from app.topics import (
    TABLES,
    Difference,
    ExistingTopic,
    Topics,
    TopicSpec,
    apply,
    check,
    client_config,
    plan,
    refusal,
    warnings,
)

DAY_MS = 86_400_000
TOPICS = Topics("vault", "vault-stream")


class FakeBroker:
    """Topics in a dict."""

    def __init__(self, topics: Mapping[str, ExistingTopic] | None = None) -> None:
        self.topics = dict(topics or {})
        self.created: list[str] = []

    def existing(self, names: Sequence[str]) -> Mapping[str, ExistingTopic]:
        return {name: self.topics[name] for name in names if name in self.topics}

    def create(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            self.created.append(spec.name)
            self.topics[spec.name] = as_existing(spec)


def as_existing(spec: TopicSpec) -> ExistingTopic:
    return ExistingTopic(spec.partitions, spec.replication, dict(spec.config))


def planned(name: str, **options: float) -> TopicSpec:
    specs = plan(TOPICS, partitions=12, replication=int(options.pop("replication", 1)), **options)
    return next(spec for spec in specs if spec.name == name)


def test_the_names_are_those_of_the_architecture() -> None:
    assert TOPICS.vault[0] == "vault.llm-data-vault-dataset-created"
    assert TOPICS.vault[-1] == TOPICS.events == "vault.events"
    assert len(TOPICS.vault) == 23
    assert (
        TOPICS.deliveries,
        TOPICS.commands,
        TOPICS.attempts,
        TOPICS.dead_letters,
        TOPICS.audit,
        TOPICS.violations,
        TOPICS.decisions,
        TOPICS.invalidations,
        TOPICS.registry_datasets,
        TOPICS.registry_changes,
        TOPICS.quarantine,
    ) == (
        "vault.webhook.deliveries",
        "vault.webhook.commands",
        "vault.webhook.attempts",
        "vault.webhook.dead-letters",
        "vault.governance.audit",
        "vault.policy.violations",
        "vault.policy.decisions",
        "vault.policy.invalidations",
        "vault.registry.datasets",
        "vault.registry.changes",
        "vault.quarantine",
    )
    assert TOPICS.changelog("deliveries") == "vault-stream-deliveries-changelog"


def test_the_plan_has_every_topic_once() -> None:
    names = [spec.name for spec in plan(TOPICS, partitions=12, replication=1)]
    assert len(names) == len(set(names)) == 23 + 11 + 6
    assert {TOPICS.changelog(table) for table in TABLES} <= set(names)


def test_every_topic_has_n_partitions_but_the_invalidations_which_have_one() -> None:
    counts = {spec.name: spec.partitions for spec in plan(TOPICS, partitions=7, replication=1)}
    assert counts.pop(TOPICS.invalidations) == 1
    assert set(counts.values()) == {7}


@pytest.mark.parametrize(
    ("name", "days"),
    [
        (TOPICS.vault[0], 7),
        (TOPICS.events, 7),
        (TOPICS.deliveries, 7),
        (TOPICS.commands, 7),
        (TOPICS.attempts, 30),
        (TOPICS.dead_letters, 30),
        (TOPICS.violations, 30),
        (TOPICS.decisions, 7),
        (TOPICS.registry_datasets, 7),
        (TOPICS.registry_changes, 30),
        (TOPICS.quarantine, 30),
        (TOPICS.audit, 365),
    ],
)
def test_retention_is_that_of_the_architecture(name: str, days: int) -> None:
    spec = planned(name)
    assert spec.config["cleanup.policy"] == "delete"
    assert spec.config["retention.ms"] == str(days * DAY_MS)


def test_audit_retention_and_invalidation_retention_follow_the_settings() -> None:
    assert planned(TOPICS.audit, audit_retention_d=10).config["retention.ms"] == str(10 * DAY_MS)
    assert planned(TOPICS.invalidations, policy_ttl_s=450).config["retention.ms"] == "900000"


def test_changelogs_are_compacted_and_keep_tombstones_a_week() -> None:
    config = planned(TOPICS.changelog("deliveries")).config
    assert config["cleanup.policy"] == "compact"
    assert config["min.cleanable.dirty.ratio"] == "0.1"
    assert config["delete.retention.ms"] == str(7 * DAY_MS)
    assert "retention.ms" not in config


def test_of_the_audit_trail_and_of_invalidations_no_size_of_the_brokers_takes_records() -> None:
    specs = plan(TOPICS, partitions=1, replication=1)
    assert {spec.name for spec in specs if spec.config.get("retention.bytes") == "-1"} == {
        TOPICS.audit,
        TOPICS.invalidations,
    }


def test_only_commands_and_invalidations_carry_the_brokers_clock() -> None:
    specs = plan(TOPICS, partitions=1, replication=1)
    by_broker = {spec.name for spec in specs if spec.config.get("message.timestamp.type") == "LogAppendTime"}
    assert by_broker == {TOPICS.commands, TOPICS.invalidations}


def test_quarantine_takes_two_mebibytes() -> None:
    assert planned(TOPICS.quarantine).config["max.message.bytes"] == str(2 * 1024 * 1024)


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2")])
def test_all_but_one_replica_must_be_in_sync_and_none_may_lead_uncleanly(replication: int, in_sync: str) -> None:
    for spec in plan(TOPICS, partitions=1, replication=replication):
        assert spec.config["min.insync.replicas"] == in_sync
        assert spec.config["unclean.leader.election.enable"] == "false"


def test_apply_creates_what_is_missing_and_nothing_else() -> None:
    specs = plan(TOPICS, partitions=3, replication=1)
    broker = FakeBroker({spec.name: as_existing(spec) for spec in specs[:-2]})
    assert apply(specs, broker) == ()
    assert broker.created == [specs[-2].name, specs[-1].name]
    assert check(specs, broker) == ()


def test_apply_reports_a_topic_that_differs_and_leaves_it_alone() -> None:
    spec = planned(TOPICS.deliveries)
    broker = FakeBroker({spec.name: replace(as_existing(spec), partitions=5)})
    assert apply([spec], broker) == (Difference(spec.name, "partitions", "12", "5"),)
    assert broker.created == []


def test_a_vault_topic_may_have_any_number_of_partitions_and_any_configuration_of_its_owners() -> None:
    spec = planned(TOPICS.vault[3])
    theirs = ExistingTopic(3, 1, {"retention.ms": str(30 * DAY_MS), "cleanup.policy": "delete"})
    assert check([spec], FakeBroker({spec.name: theirs})) == ()


def test_a_vault_topic_that_forgets_within_a_week_is_a_difference() -> None:
    spec = planned(TOPICS.vault[3])
    theirs = ExistingTopic(3, 1, {"retention.ms": str(DAY_MS)})
    assert [str(difference) for difference in check([spec], FakeBroker({spec.name: theirs}))] == [
        f"{spec.name}: retention.ms is {DAY_MS}, wanted {7 * DAY_MS}"
    ]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "delete"),
        ("min.cleanable.dirty.ratio", "0.5"),
        ("delete.retention.ms", "1000"),
        ("max.message.bytes", "1000"),
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "0"),
    ],
)
def test_a_changelog_with_another_setting_is_a_difference(setting: str, value: str) -> None:
    spec = planned(TOPICS.changelog("audit"))
    found = replace(as_existing(spec), config={**spec.config, setting: value})
    assert [difference.what for difference in check([spec], FakeBroker({spec.name: found}))] == [setting]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "-1"),
        ("retention.ms", str(400 * DAY_MS)),
        ("max.message.bytes", "99999999"),
    ],
)
def test_more_than_the_plan_asks_for_is_no_difference(setting: str, value: str) -> None:
    spec = planned(TOPICS.audit)
    found = replace(as_existing(spec), config={**spec.config, setting: value})
    assert check([spec], FakeBroker({spec.name: found})) == ()


def test_fewer_replicas_are_a_difference_and_more_are_none() -> None:
    spec = planned(TOPICS.audit, replication=2)
    fewer, more = (replace(as_existing(spec), replication=count) for count in (1, 3))
    assert [d.what for d in check([spec], FakeBroker({spec.name: fewer}))] == ["replication"]
    assert check([spec], FakeBroker({spec.name: more})) == ()


def test_of_a_topic_that_the_broker_does_not_describe_only_the_presence_is_checked() -> None:
    spec = planned(TOPICS.invalidations)
    assert check([spec], FakeBroker({spec.name: ExistingTopic(4, 1, None)})) == ()
    assert [difference.missing for difference in check([spec], FakeBroker())] == [True]


def refusals(spec: TopicSpec, **config: str) -> list[str]:
    found = replace(as_existing(spec), config={**spec.config, **{k.replace("_", "."): v for k, v in config.items()}})
    told = (refusal(one, TOPICS, "kafka:9092") for one in check([spec], FakeBroker({spec.name: found})))
    return [line for line in told if line is not None]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("retention.ms", "600000"), ("retention.bytes", "1000"), ("message.timestamp.type", "CreateTime")],
)
def test_invalidations_that_are_forgotten_too_early_refuse_the_start_and_say_what_to_run(
    setting: str, value: str
) -> None:
    spec = planned(TOPICS.invalidations, policy_ttl_s=7200)
    (line,) = refusals(spec, **{setting: value})
    assert f"{spec.name}: {setting} is {value}, wanted {spec.config[setting]}" in line
    assert (
        "kafka-configs.sh --bootstrap-server kafka:9092 --alter --entity-type topics"
        f" --entity-name {spec.name} --add-config {setting}={spec.config[setting]}"
    ) in line
    assert "\n" not in line


def test_invalidations_that_are_kept_longer_or_otherwise_configured_do_not_refuse_it() -> None:
    spec = planned(TOPICS.invalidations)
    for retention_ms in (spec.config["retention.ms"], "86400000", "-1"):
        assert refusals(spec, retention_ms=retention_ms) == []
    assert refusals(spec, unclean_leader_election_enable="true") == []


def test_a_shorter_retention_of_another_topic_is_for_an_operator_to_judge() -> None:
    assert refusals(planned(TOPICS.audit), retention_ms="1000", retention_bytes="1000") == []


def test_another_number_of_partitions_refuses_the_start() -> None:
    spec = planned(TOPICS.deliveries)
    (found,) = check([spec], FakeBroker({spec.name: replace(as_existing(spec), partitions=5)}))
    assert "another VAULT_STREAM_APP_ID" in str(refusal(found, TOPICS, "kafka:9092"))


def test_one_replica_on_three_brokers_is_warned_of() -> None:
    assert warnings(replication=1, broker_count=2) == ()
    assert warnings(replication=2, broker_count=3) == ()
    (line,) = warnings(replication=1, broker_count=3)
    assert "VAULT_STREAM_REPLICATION" in line


@dataclass
class Group:
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None


def test_the_client_honours_every_security_setting() -> None:
    group = Group("SASL_SSL", "SCRAM-SHA-512", "app", SecretStr("s3cret"), "/ca.pem", "/c.pem", "/k.pem")
    assert client_config("b:9092", group) == {
        "bootstrap.servers": "b:9092",
        "client.id": "vault-stream",
        "log_level": 0,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "app",
        "sasl.password": "s3cret",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
    }


def test_the_client_leaves_unset_settings_out() -> None:
    assert "sasl.password" not in client_config("b:9092", Group())
    assert "security.protocol" not in client_config("b:9092")


def test_a_security_group_that_lacks_a_setting_is_a_mistake_and_not_plaintext() -> None:
    with pytest.raises(AttributeError):
        client_config("b:9092", SimpleNamespace(sasl_username="app"))
