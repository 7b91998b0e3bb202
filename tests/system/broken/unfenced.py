"""An idempotent producer in place of the transactional one: a former owner is not refused."""

from typing import Any

from app.brokers import Connection
from app.engine.changelog import PlainChangelog
from app.engine.engine import Engine


class _Idempotent:
    """Gives every producer an id of its own, by which the log tells who wrote."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def aiokafka(self) -> dict[str, Any]:
        return self._connection.aiokafka() | {"enable_idempotence": True}


def apply() -> None:
    Engine.new_changelog = lambda self, number: PlainChangelog(_Idempotent(self.connection), self.config.app_id, number)
