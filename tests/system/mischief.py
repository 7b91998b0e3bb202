"""What a record may do to the handler of a fold worker; its value says what, and everything else is counted.

`!throw` raises, always. `!deploy` raises while the worker runs with `BAD_DEPLOY`. `!row` puts a row that no changelog
carries. `!disk` fails like a disk that is full, while a file of that name lies beside the worker's `DATA_DIR`.
`!stand` never returns. A handler of a real agent does none of it on request; bugs do.
"""

import asyncio
import os
from pathlib import Path

from app.engine import Record, Table, Unit
from app.engine.table import ROW_LIMIT_BYTES

MISCHIEF = b"!"


async def play(record: Record, unit: Unit, table: Table, row: type) -> None:
    value = record.value or b""
    if value.startswith(b"!throw"):
        raise ValueError("a bug")
    if value.startswith(b"!deploy") and os.environ.get("BAD_DEPLOY"):
        raise KeyError("a bad deploy")
    if value.startswith(b"!row"):
        unit.put(table, b"large", row(n=1, padding="x" * ROW_LIMIT_BYTES))
    if value.startswith(b"!disk") and (Path(os.environ["DATA_DIR"]).parent / "disk-is-full").exists():
        raise OSError(28, "No space left on device")
    if value.startswith(b"!stand"):
        await asyncio.Event().wait()
