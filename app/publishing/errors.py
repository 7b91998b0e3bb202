"""What can go wrong when an event is published.

- EventError
    - ConfigurationError: the settings of the publisher do not work, whatever the event.
    - SerializationError: this event cannot be sent: it breaks the rules of contracts 1, or is too large.
    - PublishFailed: the broker did not acknowledge it.
    - BrokerConnectionError: no broker could be reached.
"""


class EventError(Exception):
    """The base of everything that a publisher raises.

    Attributes:
        retriable: True if sending the same event again may succeed.
    """

    retriable = False


class ConfigurationError(EventError):
    """The settings of the publisher do not work; the message names the field and the fix."""


class SerializationError(EventError):
    """This event cannot be sent as it is; the message names the field."""


class PublishFailed(EventError):
    """The broker refused the event, or did not acknowledge it in time: it may have arrived all the same."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class BrokerConnectionError(EventError):
    """No broker could be reached."""

    retriable = True
