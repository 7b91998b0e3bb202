"""A broker's topics, through librdkafka's admin client."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from app.brokers import connection_to, explain
from app.brokers.refusals import missing_right
from app.topics.errors import BrokerRefusesError, BrokerUnreachableError, TopicCreationError, TopicError
from app.topics.planning import ExistingTopic, TopicSpec

EMBEDDED_CLUSTER_ID_PREFIX: Final = "mockCluster"
"""How librdkafka's in-process cluster names itself; it answers no creation and no description calls."""

LOOK_S: Final = 3.0
SHOWN_POLL_S: Final = 0.02
"""A broker acknowledges a creation a moment before its metadata shows it."""

_MAY_NOT_CREATE: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


def client_config(brokers: str, kafka: object | None = None) -> dict[str, str | int]:
    """What a librdkafka client needs to reach the brokers.

    Args:
        brokers: `host:port`, separated by commas.
        kafka: the `KAFKA__*` group of the settings (contracts 8.2); without it, plaintext.
    """
    return {**connection_to(brokers, kafka).librdkafka(), "client.id": "vault-stream"}


class TopicAdmin:
    """A broker's topics, through librdkafka's admin client. All calls block: from a loop, use a thread.

    On the embedded cluster a topic is made by asking for its metadata, with the cluster's own partition count, and
    no configuration is described.
    """

    def __init__(self, config: Mapping[str, str | int], *, timeout_s: float = 15.0) -> None:
        self._told: KafkaError | None = None
        self._client = AdminClient(dict(config), error_cb=self._hear)
        self._timeout_s = timeout_s
        self._brokers = str(config["bootstrap.servers"])

    @property
    def embedded(self) -> bool:
        """Whether this is librdkafka's in-process cluster."""
        return str(self._metadata().cluster_id or "").startswith(EMBEDDED_CLUSTER_ID_PREFIX)

    @property
    def broker_count(self) -> int:
        """How many brokers the cluster has now."""
        return len(self._metadata().brokers)

    def existing(self, names: Sequence[str]) -> Mapping[str, ExistingTopic]:
        """Those of the named topics that exist."""
        metadata = self._metadata()
        present = [name for name in names if name in metadata.topics]
        described = not str(metadata.cluster_id or "").startswith(EMBEDDED_CLUSTER_ID_PREFIX)
        if described and len(present) < len(names):
            self._refuse_hidden([name for name in names if name not in metadata.topics])
        configs = self._configs(present) if described and present else {}
        result = {}
        for name in present:
            partitions = metadata.topics[name].partitions
            replication = min((len(partition.replicas) for partition in partitions.values()), default=0)
            result[name] = ExistingTopic(len(partitions), replication, configs.get(name))
        return result

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Creates topics and waits until the brokers show them; one that exists already is no error."""
        if self.embedded:
            for spec in specs:
                self._metadata(spec.name)
        else:
            self._create(specs)
        deadline_s = time.monotonic() + self._timeout_s
        while not {spec.name for spec in specs} <= set(self._metadata().topics):
            if time.monotonic() > deadline_s:
                raise TopicCreationError(f"the brokers do not show the new topics within {self._timeout_s:.0f} s")
            time.sleep(SHOWN_POLL_S)

    def _create(self, specs: Sequence[TopicSpec]) -> None:
        new = [NewTopic(s.name, s.partitions, s.replication, config=dict(s.config)) for s in specs]
        refused = []
        for name, future in self._client.create_topics(new, request_timeout=self._timeout_s).items():
            try:
                future.result()
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() in _MAY_NOT_CREATE:
                    raise BrokerRefusesError(
                        f"{len(specs)} topics are missing, and may not be made: run `vault-stream topics apply` as"
                        f" a user who may, or: {missing_right('Create', 'topic', name)}"
                    ) from None
                if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused.append(f"{name}: {reason.str()}")
        if refused:
            raise TopicCreationError("the broker refused to create " + "; ".join(sorted(refused)))

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        result = {}
        for resource, future in self._client.describe_configs(resources, request_timeout=self._timeout_s).items():
            try:
                entries = future.result()
            except KafkaException as error:
                raise self._failure(error, "DescribeConfigs", str(resource.name)) from None
            result[str(resource.name)] = {key: entry.value for key, entry in entries.items() if entry.value is not None}
        return result

    def _metadata(self, topic: str | None = None) -> Any:
        # Refused, librdkafka tries again until the time is up: it is asked in parts, with a look at what it was told.
        until_s = time.monotonic() + self._timeout_s
        while True:
            left_s = until_s - time.monotonic()
            try:
                return self._client.list_topics(topic, timeout=max(0.1, min(left_s, LOOK_S)))
            except KafkaException as error:
                failure = self._failure(error)
            if left_s <= LOOK_S or isinstance(failure, BrokerRefusesError):
                raise failure

    def _refuse_hidden(self, names: Sequence[str]) -> None:
        """A list of all topics leaves out those that we may not see; asked by name, the broker says so.

        Raises:
            BrokerRefusesError: One is hidden.
        """
        for name, future in self._client.describe_topics(
            TopicCollection(list(names)), request_timeout=self._timeout_s
        ).items():
            with suppress(KafkaException):
                future.result()
                continue
            reason = future.exception().args[0]
            if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise self._failure(KafkaException(reason), "Describe", name)

    def _failure(self, error: KafkaException, operation: str | None = None, name: str | None = None) -> TopicError:
        # A call that meets no broker only runs out of time; why was told beside it, to whoever polls.
        self._client.poll(0)
        for reason in (error.args[0], self._told):
            if reason is not None and (line := explain(reason, operation, name)) is not None:
                return BrokerRefusesError(line)
        return BrokerUnreachableError(f"no answer from the brokers at {self._brokers}: {error.args[0].str()}")

    def _hear(self, error: KafkaError) -> None:
        """The call that meets a connection error raises it; librdkafka would print it as well."""
        if explain(error) is not None:
            self._told = error
