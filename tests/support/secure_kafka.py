"""A real broker as companies run it: SASL_SSL with SCRAM-SHA-512, SSL with client certificates, an authorizer.

Its plaintext listener is the test's own way in: whoever comes by it is a super user. All others have what an ACL gives
them, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from app.brokers import Connection
from app.devstack.kafka import KafkaServer, free_port
from app.topics.acls import Acl
from tests.support.certificates import Authority
from tests.support.kafka import require_kafka

__all__ = ["SecureKafka", "own_secure_kafka", "secure_kafka"]

ANSWER_S: Final = 60.0
ITERATIONS: Final = 4096

_MORE: Final = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},\
SASL_SSL://127.0.0.1:{scram},SSL://127.0.0.1:{mtls}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{scram},SSL://127.0.0.1:{mtls}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.ssl.ssl.client.auth=required
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
connection.failed.authentication.delay.ms=100
"""


class SecureKafka(KafkaServer):
    """The broker, its authority, and the users and rights that a test gives.

    Attributes:
        authority: Signed the broker's certificate, and is trusted by it for those of clients.
        scram: `host:port` of the SASL_SSL listener.
        mtls: `host:port` of the SSL listener, which wants a client certificate.
    """

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, leash=True)
        data_dir.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(data_dir, "brokers-ca")
        self._scram_port, self._mtls_port = free_port(), free_port()
        self._trusted = data_dir / "trusted.pem"
        self.trust(self.authority)

    @property
    def scram(self) -> str:
        return f"127.0.0.1:{self._scram_port}"

    @property
    def mtls(self) -> str:
        return f"127.0.0.1:{self._mtls_port}"

    def _server_properties(self, port: int, controller_port: int) -> str:
        certificate, key = self.authority.issue("broker")
        keystore = self.data_dir / "broker-keystore.pem"
        keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
        # A later line of a properties file replaces an earlier one.
        return super()._server_properties(port, controller_port) + _MORE.format(
            port=port,
            controller_port=controller_port,
            scram=self._scram_port,
            mtls=self._mtls_port,
            ca=self._trusted,
            keystore=keystore,
        )

    # -- users and rights

    def trust(self, authority: Authority) -> None:
        """Take certificates of clients that this authority signed, and no others, from the next start on."""
        self._trusted.write_bytes(authority.file.read_bytes())

    def user(self, name: str, password: str) -> None:
        """A SCRAM user, or another password for one."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
        self._alter(UserScramCredentialUpsertion(name, credential, password.encode()))
        security = ("SASL_SSL", "SCRAM-SHA-512", name, password, str(self.authority.file))
        client = AdminClient(Connection(self.scram, *security).librdkafka(), error_cb=lambda _: None)
        # The broker answers a moment before it knows.
        _until(lambda: _answers(client), "the user may log in")

    def forget_user(self, name: str) -> None:
        """No login under this name any more."""
        self._alter(UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512))

    def allow(self, principal: str, acls: Iterable[Acl]) -> None:
        """Give these rights."""
        wanted = [_binding(principal, acl) for acl in acls]
        _settle(self._admin.create_acls(wanted, request_timeout=ANSWER_S))
        _until(lambda: set(map(str, wanted)) <= self._known(principal), "the rights are given")

    def forbid(self, principal: str, acls: Iterable[Acl]) -> None:
        """Take these rights away; each must have been given."""
        acls = list(acls)
        wanted = [_binding(principal, acl) for acl in acls]
        filters = [_binding(principal, acl, filter_=True) for acl in acls]
        for removed in _settle(self._admin.delete_acls(filters, request_timeout=ANSWER_S)):
            assert len(list(removed)) == 1, "an ACL that was not there"
        _until(lambda: not set(map(str, wanted)) & self._known(principal), "the rights are gone")

    def _known(self, principal: str) -> set[str]:
        every = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            principal,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        return set(map(str, self._admin.describe_acls(every, request_timeout=ANSWER_S).result(ANSWER_S)))

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _alter(self, change: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
        _settle(self._admin.alter_user_scram_credentials([change], request_timeout=ANSWER_S))


def _binding(principal: str, acl: Acl, *, filter_: bool = False) -> AclBinding | AclBindingFilter:
    kind = AclBindingFilter if filter_ else AclBinding
    return kind(
        ResourceType[{"transactionalId": "TRANSACTIONAL_ID"}.get(acl.resource, acl.resource.upper())],
        acl.name,
        ResourcePatternType.PREFIXED if acl.prefix else ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[{"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(acl.operation, acl.operation.upper())],
        AclPermissionType.ALLOW,
    )


def _settle(futures: dict[object, object]) -> list[object]:
    return [future.result(ANSWER_S) for future in futures.values()]  # type: ignore[attr-defined]


def _answers(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + ANSWER_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {ANSWER_S:.0f} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """The secured broker of a file of tests: use users, topics and application ids of your own."""
    require_kafka()
    server = SecureKafka(tmp_path_factory.mktemp("secure-kafka"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A secured broker of one test, which may stop it."""
    require_kafka()
    server = SecureKafka(tmp_path_factory.mktemp("own-secure-kafka"))
    server.start()
    yield server
    server.kill()
