"""Two Faust agents as its handbook has them: one that never returns, one that counts; default settings.

It reads the topics of a fold group: `{APP}.in` stands, `{APP}.relay` is counted into `DATA_DIR/status.json`.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import faust

from tests.system.mischief import MISCHIEF


async def main() -> None:
    group, folder = os.environ["APP"], Path(os.environ["DATA_DIR"])
    app = faust.App(f"{group}-stock", broker=f"kafka://{os.environ['BROKERS']}", datadir=folder, web_enabled=False)
    counted = 0

    def tell() -> None:
        (folder / "status.new").write_text(json.dumps({"ready": True, "relayed": counted}))
        (folder / "status.new").replace(folder / "status.json")

    @app.agent(app.topic(f"{group}.in", key_serializer="raw", value_serializer="raw"))
    async def stand(stream: Any) -> None:
        async for value in stream:
            if value.startswith(MISCHIEF):
                await asyncio.Event().wait()

    @app.agent(app.topic(f"{group}.relay", key_serializer="raw", value_serializer="raw"))
    async def relay(stream: Any) -> None:
        nonlocal counted
        async for _ in stream:
            counted += 1
            tell()

    app.in_worker = True
    app.finalize()
    await app.start()
    tell()
    await asyncio.Event().wait()


if __name__ == "__main__":
    Path(os.environ["DATA_DIR"]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main())
