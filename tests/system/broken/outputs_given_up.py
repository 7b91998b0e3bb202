"""An output that was not acknowledged is forgotten, and its record is done all the same."""

from app.engine import OutputFailed, Unit, output_queue


def apply() -> None:
    output_queue.SEND_DEADLINE_S = 0.5
    flush = Unit.flush

    async def flush_once(unit: Unit) -> None:
        try:
            await flush(unit)
        except OutputFailed:
            unit._messages = []

    Unit.flush = flush_once
