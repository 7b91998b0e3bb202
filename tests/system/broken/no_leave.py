"""A worker that starts leaves its dead self in the group."""

from app.engine.engine import Engine


def apply() -> None:
    async def join_beside_it(self: Engine) -> None:
        self._former = ""

    Engine.before_join = join_beside_it
