"""A worker with one non-idempotent fold and one relay, configured by the environment.

`fold` counts records a key (`count += 1`), so that any record lost or applied twice shows for ever; the value `delete`
deletes the key's row. `relay` sends one record for each. Topics: `{APP}.in` and `{APP}.small`, read by fold;
`{APP}.relay`, read by relay into `{APP}.out`.
"""

import asyncio
import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from app.engine import (
    Agent,
    Connection,
    Record,
    Slice,
    StartRefused,
    Table,
    Unit,
    changelog,
    faults,
    obstacle,
    slice_handler,
    store,
)
from app.engine.app import create_app
from app.engine.engine import Engine, EngineConfig
from app.observability import metrics
from tests.system.mischief import MISCHIEF, play


class Count(msgspec.Struct, frozen=True, omit_defaults=True):
    n: int = 0
    padding: str = ""


def by_count(key: bytes, row: Count) -> list[bytes]:
    return [b"%08d/" % row.n + key]


COUNTS = Table("counts", 1, Count, index=by_count if os.environ.get("INDEX") else None)
NONE = Table("positions", 2, Count)


async def fold(slice_: Slice, unit: Unit) -> None:
    for at, record in enumerate(slice_.records):
        key = record.key or b"?"
        if record.value == b"delete":
            unit.delete(COUNTS, key)
            continue
        if (record.value or b"").startswith(MISCHIEF):
            await play(record, unit, COUNTS, Count)
        row = unit.get(COUNTS, key) or Count()
        unit.put(COUNTS, key, Count(row.n + 1))
        if at % 32 == 31:
            await asyncio.sleep(0)


def relay_to(out: str):  # noqa: ANN201
    async def relay(slice_: Slice, unit: Unit) -> None:
        record: Record
        for record in slice_.records:
            if record.value == b"poison":
                raise ValueError("poison")
            if (record.value or b"").startswith(MISCHIEF):
                await play(record, unit, COUNTS, Count)
            # One way and the other: neither may lose what it sends.
            late = record.offset % 2 and (record.value or b"").startswith(b"v-")
            (unit.send_late if late else unit.send)(out, record.key, record.value)

    return relay


def agents(app: str) -> list[Agent]:
    return [
        Agent(
            name="fold",
            topics=(f"{app}.in", f"{app}.small"),
            processor=slice_handler(fold),
            home=COUNTS,
            tables=(COUNTS,),
        ),
        Agent(
            name="relay",
            topics=(f"{app}.relay",),
            processor=slice_handler(relay_to(f"{app}.out")),
            home=NONE,
            tables=(NONE,),
        ),
    ]


async def main() -> None:
    app_id = os.environ["APP"]
    engine = Engine(
        EngineConfig(
            app_id=app_id,
            connection=Connection(os.environ["BROKERS"]),
            numbers=int(os.environ["NUMBERS"]),
            data_dir=Path(os.environ["DATA_DIR"]),
            instance=os.environ.get("NAME", "w"),
            url=os.environ.get("URL", "http://127.0.0.1:1"),
            quarantine_topic=f"{app_id}.quarantine",
            session_timeout_s=float(os.environ.get("SESSION", "6")),
            store_stale_after_s=float(os.environ.get("STALE_AFTER", "600000")),
        ),
        agents(app_id),
    )
    if os.environ.get("EMBEDDED"):
        engine.unfence()
    app = create_app(engine, stats_port=0)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app.in_worker = True
    app.finalize()
    # Before the start, which waits for the join.
    status = asyncio.create_task(report(engine, Path(os.environ["DATA_DIR"]) / "status.json"))
    await app.start()
    while not stop.is_set():
        try:
            async with asyncio.timeout(0.5):
                await stop.wait()
        except TimeoutError:
            if app.crashed:
                engine.die("the application crashed")
    status.cancel()
    await app.stop()
    os._exit(0)


async def report(engine: Engine, file: Path) -> None:
    """What a test waits for: written whenever it changes."""
    last, armed = "", file.with_name("fault")
    while True:
        if armed.exists():
            faults.arm(faults.parse(armed.read_text()))
            armed.unlink()
        now = json.dumps(
            {
                "ready": not engine.status.not_ready(),
                "reasons": engine.status.not_ready(),
                "numbers": sorted(n for n, x in engine.numbers.items() if x.ready),
                "owners": engine.status.owners(),
                "generation": engine._generation,
                "lag": engine.status.lag(),
                "oldest_s": {agent: int(age_s) for agent, age_s in engine.status.oldest_unfinished_s().items()},
                "partitions": {n: sorted(map(list, x.trackers)) for n, x in engine.numbers.items()},
                "failed_checkpoints": metrics.CHECKPOINTS.labels(outcome="failed")._value.get(),
                "tasks": len(asyncio.all_tasks()),
            }
        )
        if now != last:
            file.with_suffix(".new").write_text(now)
            file.with_suffix(".new").replace(file)
            last = now
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    logging.basicConfig(
        level=os.environ.get("LOG", "INFO"), stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    if buffer_bytes := os.environ.get("WRITE_BUFFER_BYTES"):
        store._WRITE_BUFFER_BYTES = int(buffer_bytes)
    for broken in os.environ.get("BROKEN", "").split():
        importlib.import_module(f"tests.system.broken.{broken}").apply()
    if deadline_s := os.environ.get("WRITE_DEADLINE"):
        changelog.WRITE_DEADLINE_S = float(deadline_s)
    if shown_after_s := os.environ.get("SHOWN_AFTER"):
        obstacle.OBSTACLE_SHOWN_AFTER_S = float(shown_after_s)
    if fault := os.environ.get("FAULT"):
        faults.arm(faults.parse(fault))
    try:
        uvloop.run(main())
    except StartRefused as refused:
        print(refused, file=sys.stderr)  # noqa: T201
        sys.exit(1)
