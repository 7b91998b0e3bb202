"""Workers on Kafka as companies run it: TLS, a login, an authorizer, and no right too many."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.events import VaultEventType
from app.publishing import BrokerConnectionError, KafkaConfig, KafkaEventPublisher, KafkaSecurity, VaultEvent
from app.topics import AclRole, Topics, acls_of
from tests.support.certificates import Authority
from tests.support.secure_kafka import SecureKafka
from tests.support.secured import Secured, leaks, logged, not_ready_because, said
from tests.support.workers import Deployment, RunningWorker

pytestmark = pytest.mark.kafka

SEVERAL_TRIES_S = 8.0
LONGER_THAN_A_SESSION_S = 10.0


@pytest.fixture
async def secured(secure_kafka: SecureKafka, unique: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Secured]:
    async with Deployment(secure_kafka.bootstrap, unique("app"), tmp_path) as deployment:
        yield Secured(secure_kafka, deployment, tmp_path)


def events(count: int) -> list[VaultEvent]:
    type_ = VaultEventType.DATASET_CREATED
    return [VaultEvent.new(type_, "/vault", {"dataset_id": f"ds-{n}", "name": "n"}) for n in range(count)]


async def test_a_wrong_password_is_one_line_and_a_reason_and_the_right_one_is_enough(secured: Secured) -> None:
    secured.prepare()
    secured.keep(secured.new_password())
    worker = secured.deployment.worker("w1")
    await worker.start()
    reason = await not_ready_because(worker, "KAFKA__SASL_PASSWORD")

    secured.keep(secured.password)
    await secured.deployment.ready(worker)
    hook = await secured.deployment.hook("*")
    published = events(5)
    await secured.deployment.publish(published)
    await secured.deployment.observed(lambda: hook.expected(published) <= hook.receiver.accepted, "all arrive")

    assert await worker.stop() == 0
    assert_said_once(worker, reason)
    assert flood(worker) == []
    assert leaks([worker.log], secured.passwords) == []


@pytest.mark.prove
async def test_every_command_and_a_worker_need_the_rights_of_the_list_and_no_other(secured: Secured) -> None:
    secured.prepare()
    worker = secured.deployment.worker("w1", LOG__LEVEL="debug,aiokafka=debug,faust=debug,mode=debug")
    await worker.start()
    await secured.deployment.ready(worker)
    event = {"specversion": "1.0", "id": "e-1", "source": "/vault", "type": "llm.data-vault.dataset.created"}
    line = json.dumps(event | {"data": {"dataset_id": "ds-1", "name": "n"}}).encode()
    (secured.secrets.parent / "events.jsonl").write_bytes(line + b"\n")

    published = await secured.command("publish", "events.jsonl")
    await secured.deployment.idle()
    answers = {
        "publish": published,
        "positions show": await secured.command("positions", "show"),
        "audit verify": await secured.command("audit", "verify", "--topic"),
        "topics check": await secured.command("topics", "check"),
        "topics apply": await secured.command("topics", "apply"),
        "config": await secured.command("config"),
    }
    assert {name: answer for name, answer in answers.items() if answer[0] != 0} == {}
    assert "1 published" in answers["publish"][1]
    assert b'"level":"DEBUG"' in worker.log.read_bytes()
    assert leaks([worker.log], secured.passwords) == []
    assert [name for name, answer in answers.items() if secured.password in "".join(answer[1:])] == []


@pytest.mark.prove
async def test_topics_are_made_by_a_user_who_may_and_until_then_the_worker_waits(secured: Secured) -> None:
    secured.kafka.user(secured.user, secured.password)
    secured.kafka.allow(secured.principal, secured.acls)
    worker = secured.deployment.worker("w1")
    await worker.start()
    await not_ready_because(worker, "topics are missing", "topics apply", "Create on topic")
    code, _, err = await secured.command("topics", "apply")
    assert (code, err.count("\n")) == (1, 1)
    assert "Create on topic" in err

    maker = f"{secured.user}-maker"
    secured.kafka.user(maker, secured.password)
    secured.kafka.allow(f"User:{maker}", acls_of(AclRole.TOPICS, secured.deployment.topics))
    assert (await secured.command("topics", "apply", KAFKA__SASL_USERNAME=maker))[0] == 0
    await secured.deployment.ready(worker)
    assert_said_once(worker)
    assert flood(worker) == []


@pytest.mark.prove
async def test_a_publisher_needs_its_two_rights(secured: Secured) -> None:
    secured.prepare()
    service = f"{secured.user}-service"
    secured.kafka.user(service, secured.password)
    secured.kafka.allow(f"User:{service}", acls_of(AclRole.PUBLISHER, secured.deployment.topics))
    security = KafkaSecurity(
        protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=service,
        sasl_password=secured.password,
        ssl_ca=str(secured.kafka.authority.file),
    )
    prefix = secured.deployment.topics.prefix
    for layout in ("per_type", "single"):
        config = KafkaConfig(brokers=[secured.kafka.scram], topic_prefix=prefix, topic_layout=layout, security=security)
        async with KafkaEventPublisher(config) as publisher:
            assert (await publisher.publish_batch(events(3))).successful == 3
    secured.kafka.forbid(f"User:{service}", acls_of(AclRole.PUBLISHER, secured.deployment.topics)[1:])
    async with KafkaEventPublisher(config) as publisher:
        (failure,) = (await publisher.publish_batch(events(1))).errors
    assert "no right Write on topic" in str(failure.error)
    with pytest.raises(BrokerConnectionError, match="KAFKA__SASL_PASSWORD"):
        await KafkaEventPublisher(replace(config, security=replace(security, sasl_password="wrong"))).start()


@pytest.mark.prove
@pytest.mark.parametrize(
    "command", [("publish", "events.jsonl"), ("positions", "show"), ("audit", "verify", "--topic")]
)
async def test_a_command_that_is_refused_says_so_in_one_line(secured: Secured, command: tuple[str, ...]) -> None:
    secured.prepare()
    event = {"specversion": "1.0", "id": "e-1", "source": "/vault", "type": "llm.data-vault.dataset.created"}
    line = json.dumps(event | {"data": {"dataset_id": "ds-1", "name": "n"}})
    (secured.secrets.parent / "events.jsonl").write_text(line + "\n")
    secured.keep(secured.new_password())
    code, out, err = await secured.command(*command)

    assert (code, err.count("\n")) == (1, 1), (out, err)
    assert "KAFKA__SASL_PASSWORD" in err
    assert [password for password in secured.passwords if password in out + err] == []


@pytest.mark.prove
@pytest.mark.parametrize("trouble", ["another authority signed the brokers", "another authority signed us", "no TLS"])
async def test_tls_that_does_not_fit_is_one_line_and_over_when_the_file_is_mended(
    secured: Secured, tmp_path: Path, trouble: str
) -> None:
    stranger = Authority(tmp_path, "stranger")
    secured.prepare()
    secured.kafka.allow(f"User:CN={secured.user}", secured.acls)
    own, settings = secured.kafka.authority, secured.deployment.settings
    files = [tmp_path / name for name in ("ca.pem", "our.crt", "our.key")]
    right = [own.file, *own.issue(secured.user)]
    wrong, word = list(right), "KAFKA__SSL_CA"
    if trouble == "another authority signed the brokers":
        wrong[0] = stranger.file
    elif trouble == "another authority signed us":
        wrong[1:], word = stranger.issue(secured.user), "KAFKA__SSL_CERT"
    else:
        word = "KAFKA__SECURITY_PROTOCOL"
    for file, source in zip(files, wrong, strict=True):
        file.write_bytes(source.read_bytes())
    secured.use_certificate(*files[1:])
    settings["KAFKA__SSL_CA"] = str(files[0])
    if trouble == "no TLS":
        settings["BROKERS"] = secured.kafka.bootstrap
    worker = secured.deployment.worker("w1")
    await worker.start()
    await not_ready_because(worker, word)
    if trouble == "no TLS":
        return
    for file, source in zip(files, right, strict=True):
        file.write_bytes(source.read_bytes())

    await secured.deployment.ready(worker)
    assert_said_once(worker)
    assert flood(worker) == []


@pytest.mark.prove
async def test_a_worker_that_loses_the_group_goes_on_when_it_may_again(secured: Secured) -> None:
    secured.prepare()
    (worker,) = await secured.deployment.start("w1")
    group = [right for right in secured.acls if right.resource == "group"]
    secured.kafka.forbid(secured.principal, group)
    await not_ready_because(worker, f"no right Read on group {secured.user}")
    await asyncio.sleep(LONGER_THAN_A_SESSION_S)
    secured.kafka.allow(secured.principal, group)

    await secured.deployment.ready(worker)
    await secured.deployment.publish(events(3))
    await secured.deployment.idle()
    assert_said_once(worker)


@pytest.mark.prove
async def test_password_and_certificate_are_replaced_while_workers_run(
    own_secure_kafka: SecureKafka, tmp_path: Path
) -> None:
    kafka = own_secure_kafka
    async with Deployment(kafka.bootstrap, "app", tmp_path) as deployment:
        secured = Secured(kafka, deployment, tmp_path)
        secured.prepare()
        kafka.allow("User:CN=worker", secured.acls)
        by_password = deployment.worker("w1")
        certificate, key = kafka.authority.issue("worker")
        secured.use_certificate(certificate, key)
        deployment.settings.pop("SECRETS_DIR")
        by_certificate = deployment.worker("w2")
        secured.keep(secured.password)
        for worker in (by_password, by_certificate):
            await worker.start()
        for worker in (by_password, by_certificate):
            await deployment.ready(worker)
        hook = await deployment.hook("*")

        other = Authority(tmp_path, "other-authority")
        for old, new in zip((certificate, key), other.issue("worker"), strict=True):
            new.replace(old)
        kafka.trust(other)
        fresh = secured.new_password()
        kafka.user(secured.user, fresh)
        secured.keep(fresh)
        pids = by_password.pid, by_certificate.pid
        # All connections end with it, and what was valid before is refused from here on.
        await asyncio.to_thread(kafka.stop)
        await asyncio.to_thread(kafka.start)

        published = events(20)
        await deployment.publish(published)
        await deployment.observed(lambda: hook.expected(published) <= hook.receiver.accepted, "all arrive")
        for worker in (by_password, by_certificate):
            await deployment.ready(worker)
        await deployment.idle()
        assert (by_password.pid, by_certificate.pid) == pids
        assert "changed TLS files are in use" in by_certificate.log.read_text()
        assert said(by_password, "") == said(by_certificate, "") == []
        assert leaks([by_password.log, by_certificate.log], secured.passwords) == []


@pytest.mark.prove
async def test_a_password_that_is_late_holds_what_wants_a_new_connection_until_it_comes(secured: Secured) -> None:
    secured.prepare()
    (worker,) = await secured.deployment.start("w1")
    hook = await secured.deployment.hook("*")
    fresh = secured.new_password()
    secured.kafka.user(secured.user, fresh)
    published = events(10)
    # Outputs connect when there is something to send.
    await secured.deployment.publish(published)
    await not_ready_because(worker, "KAFKA__SASL_PASSWORD")
    secured.keep(fresh)

    await secured.deployment.observed(lambda: hook.expected(published) <= hook.receiver.accepted, "all arrive")
    await secured.deployment.ready(worker)
    assert_said_once(worker, "KAFKA__SASL_PASSWORD")
    assert flood(worker) == []
    assert leaks([worker.log], secured.passwords) == []


def assert_said_once(worker: RunningWorker, words: str = "") -> None:
    """One line, and no other; on a machine that stalls for as long as it takes to forget it, once more."""
    lines = said(worker, "")
    assert len(set(lines)) == 1
    assert len(lines) <= 2
    assert words in lines[0]


def flood(worker: RunningWorker) -> list[str]:
    """What it logged of errors besides the lines that say what to do."""
    entries = logged(worker, "WARNING", "ERROR", "CRITICAL")
    ours = [entry for entry in entries if not entry["message"].startswith(("Kafka refuses", "not ready: "))]
    return [entry["message"] for entry in ours if "exception" in entry or entry["target"].startswith("app.")]


@pytest.mark.prove
@pytest.mark.parametrize("lacking", range(len(acls_of(AclRole.WORKER, Topics("t", "a")))))
async def test_a_worker_that_lacks_one_right_says_which_and_goes_on_once_it_has_it(
    secured: Secured, lacking: int
) -> None:
    secured.prepare()
    right = secured.acls[lacking]
    secured.kafka.forbid(secured.principal, [right])
    worker = secured.deployment.worker("w1")
    await worker.start()
    await secured.deployment.publish(events(1))
    named = f"no right {right.operation} on {right.resource} {right.name}"
    await not_ready_because(worker, named)
    await asyncio.sleep(SEVERAL_TRIES_S)

    secured.kafka.allow(secured.principal, [right])
    await secured.deployment.ready(worker)
    await secured.deployment.idle()
    assert_said_once(worker, named)
    assert flood(worker) == []
