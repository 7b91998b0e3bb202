"""What the commands that ask a broker have in common: how long they wait for it, and one line when it fails them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click
from confluent_kafka import KafkaError, KafkaException

from app.brokers import connection_to, explain
from app.topics import BrokerRefusesError, BrokerUnreachableError, TopicAdmin, TopicError, client_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.settings import Settings

__all__ = ["Broker", "broker_of"]

FIRST_ANSWER_S: Final = 4.0
"""Enough for a broker that is there; whoever mistyped its address waits no longer."""

# librdkafka's public names of its own errors begin with an underscore.
_UNREACHABLE: Final = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001  # see above
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001  # see above
        KafkaError._RESOLVE,  # noqa: SLF001  # see above
        KafkaError._TIMED_OUT,  # noqa: SLF001  # see above
    }
)


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that has answered.

    Attributes:
        config: Of a librdkafka client.
        embedded: Whether it is librdkafka's in-process cluster.
        group: Of the workers. Who only reads names it, too: a client must name one, and any other would need a right.
    """

    config: dict[str, str | int] = field(repr=False)
    embedded: bool
    group: str = "vault-stream"


@contextmanager
def broker_of(settings: Settings) -> Iterator[Broker]:
    """The broker of the settings, and one line for what goes wrong with it inside the `with`.

    Raises:
        click.ClickException: No broker answers, or it refused something.
    """
    try:
        config = client_config(settings.brokers, settings.kafka)
        yield Broker(config, TopicAdmin(config, timeout_s=FIRST_ANSWER_S).embedded, settings.app_id)
    except BrokerUnreachableError:
        raise _no_answer(settings) from None
    except BrokerRefusesError as error:
        raise _refused(settings, str(error)) from None
    except TopicError as error:
        raise click.ClickException(str(error)) from None
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if (line := explain(reason)) is not None:
            raise _refused(settings, line) from None
        if reason.code() in _UNREACHABLE:
            raise _no_answer(settings) from None
        raise click.ClickException(f"the broker at {settings.brokers} refused: {reason.str()}") from None


def _refused(settings: Settings, line: str) -> click.ClickException:
    principal = connection_to(settings.brokers, settings.kafka).principal
    return click.ClickException(f"the broker at {settings.brokers} refuses {principal}: {line}")


def _no_answer(settings: Settings) -> click.ClickException:
    return click.ClickException(f"no broker answers at {settings.brokers}: is Kafka running there?")
