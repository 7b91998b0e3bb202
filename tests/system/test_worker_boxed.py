"""The worker as a container has it: a read-only root, process 1, a user without any right, SIGTERM from outside."""

import asyncio
import os
import signal
import sys
import sysconfig
from pathlib import Path

import pytest

from app.devstack.kafka import free_port
from app.devstack.processes import module_environment
from app.devstack.stack import worker_settings
from deploy.files import ROOT
from tests.support.deploy_tools import require
from tests.support.workers import Deployment, fetch, until

pytestmark = [pytest.mark.kafka, pytest.mark.foreign]

USER = 10_001
UNSHARE = ("--mount", "--pid", "--fork", "--kill-child")


async def box(tmp_path: Path, *command: str, **settings: str) -> asyncio.subprocess.Process:
    """A command in the box, with `tmp_path/data` as its `/data`."""
    root, data = tmp_path / "root", tmp_path / "data"
    for folder in (root, data):
        folder.mkdir(exist_ok=True)
    os.chown(data, USER, USER)
    environment = module_environment(settings) | {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": "/opt/vault-stream:/opt/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/opt/python/lib",  # the interpreter stands elsewhere than it was built for
    }
    places = (str(root), str(data), sys.base_prefix, sysconfig.get_paths()["platlib"], str(ROOT))
    script = ("sh", str(ROOT / "tests" / "support" / "boxed.sh"), *places)
    with (tmp_path / "box.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            require("unshare"), *UNSHARE, *script, *command, env=environment, stdout=log, stderr=log
        )


@pytest.fixture
async def boxes() -> None:
    """Skips where this user may not mount: no tool would help there."""
    probe = "mount --make-rprivate / && mount -t tmpfs probe /mnt"
    quiet = asyncio.subprocess.DEVNULL
    probing = await asyncio.create_subprocess_exec(
        require("unshare"), *UNSHARE, "sh", "-c", probe, stdout=quiet, stderr=quiet
    )
    if await probing.wait() != 0:
        pytest.skip("this user may not make a mount namespace and mount in it")


def inside(pid: int) -> tuple[int, dict[str, str]]:
    """The process that `unshare` started, which is process 1 in there, and what the kernel says of it."""
    child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    return child, dict(line.split(":\t", 1) for line in lines)


@pytest.mark.usefixtures("boxes")
async def test_a_worker_starts_and_drains_on_a_read_only_root_without_rights(
    deployment: Deployment, tmp_path: Path
) -> None:
    port = free_port()
    settings = worker_settings(
        brokers=deployment.brokers,
        app_id=deployment.app_id,
        data_dir=Path("/data"),
        web_port=port,
        encryption_key="k1:" + "A" * 43 + "=",
        upstreams=deployment.upstreams,
    )
    boxed = await box(tmp_path, "/opt/python/bin/python3", "-m", "app", "worker", **settings | deployment.settings)
    try:

        async def ready() -> bool:
            if boxed.returncode is not None:
                pytest.fail((tmp_path / "box.log").read_text()[-3000:])
            return (await fetch(f"http://127.0.0.1:{port}/health/ready"))[0] == 200

        await until(ready, "ready")
        pid, status = inside(boxed.pid)
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(40):
            code = await boxed.wait()
    finally:
        if boxed.returncode is None:
            boxed.kill()
            await boxed.wait()

    assert status["Uid"].split() == [str(USER)] * 4
    assert status["NSpid"].split()[-1] == "1"
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert code == 0
    assert list((tmp_path / "data").iterdir())


@pytest.mark.usefixtures("boxes")
@pytest.mark.parametrize("place", ["/etc", "/opt/vault-stream/app", "/"])
async def test_nothing_can_be_written_in_the_box_but_data_and_tmp(tmp_path: Path, place: str) -> None:
    touch = "import os, sys; open(os.path.join(sys.argv[1], 'x'), 'w')"
    python = "/opt/python/bin/python3"

    codes = [await (await box(tmp_path, python, "-c", touch, at)).wait() for at in (place, "/data", "/tmp")]  # noqa: S108

    assert codes == [1, 0, 0]
