import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.devstack.leash import leashed
from app.devstack.processes import ProcessEndedError, Worker, module_environment

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_a_child_gets_the_given_settings_and_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_STREAM_APP_ID", "mine")
    monkeypatch.setenv("OTHER", "kept")
    environment = module_environment({"WEB_PORT": "1"})
    assert environment["VAULT_STREAM_WEB_PORT"] == "1"
    assert "VAULT_STREAM_APP_ID" not in environment
    assert environment["OTHER"] == "kept"


def test_a_child_finds_the_program_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import app"]
    subprocess.run(command, cwd=tmp_path, env=module_environment({}), check=True)


def test_a_leashed_child_ends_with_its_parent_even_by_kill_9() -> None:
    # given a parent with a leashed child, whose pid it prints
    script = (
        "import subprocess, sys\n"
        "from app.devstack.leash import leashed\n"
        f"print(subprocess.Popen(leashed({FOREVER!r})).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=module_environment({}),
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        child = os.pidfd_open(int(parent.stdout.readline()))
        # when the parent is killed
        parent.kill()
        parent.wait()
        # then the kernel kills the child
        try:
            assert select.select([child], [], [], 10)[0]
        finally:
            os.close(child)


def test_a_leashed_command_is_its_own_process() -> None:
    result = subprocess.run(
        leashed([sys.executable, "-c", "import os; print(os.getpid())"]), capture_output=True, text=True, check=True
    )
    assert int(result.stdout) > 0


async def test_work_beside_a_living_worker_is_awaited(tmp_path: Path) -> None:
    worker = Worker({}, tmp_path, FOREVER)
    await worker.start()
    try:
        assert await worker.while_alive(asyncio.sleep(0, "done")) == "done"
    finally:
        await worker.kill()


@pytest.mark.parametrize("words", ["APP_ID: wrong", '{"level": "CRITICAL", "message": "APP_ID: wrong"}'])
async def test_work_beside_a_worker_that_ends_is_given_up_with_its_last_words(tmp_path: Path, words: str) -> None:
    worker = Worker({}, tmp_path, [sys.executable, "-c", f"raise SystemExit({words!r})"])
    await worker.start()
    with pytest.raises(ProcessEndedError, match=r"code 1: APP_ID: wrong"):
        await worker.while_alive(asyncio.Event().wait())


async def test_a_worker_that_was_killed_can_be_started_again(tmp_path: Path) -> None:
    worker = Worker({}, tmp_path, FOREVER)
    await worker.start()
    first = worker.pid
    await worker.kill()
    assert worker.pid is None
    await worker.start()
    assert worker.pid not in (None, first)
    assert await worker.stop() == -signal.SIGTERM


async def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    worker = Worker({}, tmp_path, [sys.executable, "-u", "-c", stubborn])
    await worker.start()
    async with asyncio.timeout(10):
        while "up" not in worker.log.read_text():
            await asyncio.sleep(0.01)
    assert await worker.stop(timeout_s=0.1) == -signal.SIGKILL


async def test_stopping_what_never_ran_does_nothing(tmp_path: Path) -> None:
    assert await Worker({}, tmp_path, FOREVER).stop() is None
