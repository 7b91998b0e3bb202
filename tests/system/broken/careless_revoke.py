"""A number that is revoked is closed at once: nothing is waited for, nothing is logged."""

from app.engine.number import Number


def apply() -> None:
    close = Number.close

    async def at_once(self: Number, drain_s: float, *, lost: bool) -> None:
        del lost
        await close(self, drain_s, lost=True)

    Number.close = at_once
