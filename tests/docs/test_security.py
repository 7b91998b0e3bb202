"""What docs/security.md says of rights is what the code says, its commands run, and its settings are taken."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import cli
from app.settings import load_settings
from app.settings.catalogue import BY_NAME, PREFIX
from app.topics import AclRole, Topics, acls_of, kafka_acls
from deploy.files import kafka_user
from tests.support.certificates import Authority

DOCUMENT = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
TOPICS = Topics("vault", "vault-stream")


def rows(section: str) -> list[str]:
    return [line for line in section.splitlines() if re.match(r"\| (Read|Write|Create|Describe)", line)]


def test_the_tables_of_rights_are_those_of_the_code() -> None:
    worker, topics, publisher = re.split(r"^`--role ", DOCUMENT.partition("### Rights")[2], flags=re.MULTILINE)
    for section, role in ((worker, "worker"), (topics, "topics"), (publisher, "publisher")):
        rights = acls_of(AclRole(role), TOPICS)
        assert rows(section) == [
            f"| {right.operation} | {right.resource} `{right.name}{'*' if right.prefix else ''}` | {right.why} |"
            for right in rights
        ]


def covers(app_id: str, other: str) -> bool:
    """Whether a worker may write changelogs of another deployment with topics of its own."""
    changelog = Topics("elsewhere", other).changelog("audit")
    return any(
        changelog.startswith(right.name) if right.prefix else changelog == right.name
        for right in acls_of(AclRole.WORKER, Topics("vault", app_id))
        if right.resource == "topic" and right.operation == "Write"
    )


def test_the_names_that_deployments_must_not_have_are_those_that_the_rights_cannot_tell_apart() -> None:
    assert "no `APP_ID` may be that of another one and `-` and more, as `vault-stream-eu` beside" in DOCUMENT
    assert covers("vault-stream", "vault-stream")
    assert covers("vault-stream", "vault-stream-eu")
    assert not covers("vault-stream-eu", "vault-stream")
    assert not covers("vault-stream-us", "vault-stream-eu")
    assert not covers("vault-stream-eu", "vault-stream-europe")


def test_the_user_of_strimzi_has_the_rights_of_a_worker_and_no_other() -> None:
    given = {
        (rule["resource"]["type"], rule["resource"]["name"], rule["resource"]["patternType"], operation)
        for rule in kafka_user()["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    }

    assert given == {
        (right.resource, right.name, "prefix" if right.prefix else "literal", right.operation)
        for right in acls_of(AclRole.WORKER, TOPICS)
    }


def test_the_command_prints_each_right_as_arguments_of_kafkas_own_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BY_NAME:
        monkeypatch.delenv(name, raising=False)
    commands = [line for block in BLOCKS for line in block.splitlines() if line.startswith("vault-stream topics acls")]
    assert len(commands) == 3
    for command in commands:
        arguments = shlex.split(command.partition("|")[0])[1:]
        result = CliRunner().invoke(cli, arguments)
        role, whom = ("publisher", "User:data-vault") if "publisher" in command else ("worker", "User:ANONYMOUS")
        assert result.exit_code == 0, result.output
        assert result.output.splitlines() == [kafka_acls(right, whom) for right in acls_of(AclRole(role), TOPICS)]


def test_a_right_is_written_as_kafka_acls_takes_it() -> None:
    group = next(right for right in acls_of(AclRole.WORKER, TOPICS) if right.resource == "group")
    transactions = next(right for right in acls_of(AclRole.WORKER, TOPICS) if right.resource == "transactionalId")

    assert kafka_acls(group, "User:app") == ("--add --allow-principal User:app --operation Read --group vault-stream")
    assert kafka_acls(transactions, "User:CN=a b") == (
        "--add --allow-principal 'User:CN=a b' --operation Write --transactional-id vault-stream-"
        " --resource-pattern-type prefixed"
    )


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.startswith(PREFIX)])
def test_the_settings_that_it_shows_are_taken(tmp_path: Path, block: str) -> None:
    certificate, key = Authority(tmp_path, "ca").issue("user")
    files = {"ca.crt": tmp_path / "ca.pem", "user.crt": certificate, "user.key": key}
    environment = dict(line.split("=", 1) for line in block.splitlines())
    for name, value in environment.items():
        if value.startswith("/run/"):
            environment[name] = str(files[Path(value).name])
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    if "SASL" in block:
        (secrets / "KAFKA__SASL_PASSWORD").write_text("a-password\n")
    settings = load_settings(environment | {f"{PREFIX}SECRETS_DIR": str(secrets)}, dotenv=tmp_path / "none")

    assert settings.kafka.security_protocol in {"SSL", "SASL_SSL"}


def test_every_setting_that_it_names_exists() -> None:
    named = set(re.findall(r"`(?:VAULT_STREAM_)?([A-Z]+(?:__[A-Z_]+)|[A-Z]+_[A-Z_]+)`", DOCUMENT))

    assert len(named) > 8
    assert [name for name in named - {PREFIX} if PREFIX + name not in BY_NAME] == []
