"""The worker pool with hostile answers, time-outs, threads, asyncio, forks and exits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spotcli
from spotcli.grading import grade, grade_many
from spotcli.grading.algebra import pool
from spotcli.grading.algebra.pool import WAITING

SECONDS = 1.5
"""Limit of one comparison, so that hostile answers do not slow the tests."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(str(spotcli.__file__)).parents[1])}


def grading_works() -> bool:
    return grade(r"\boxed{x+1}", "1+x").verdict == "right"


HOSTILE = {
    "import": r"\boxed{__import__('os').system('touch {marker}')}",
    "open": r"\boxed{open('{marker}','w') or 2\pi}",
    "eval in an exponent": r"\boxed{2^{__import__('os').system('touch {marker}')}}",
    "class walk": r"\boxed{().__class__.__bases__[0].__subclasses__()}",
    "power tower": r"\boxed{9**9**9**9}",
    "large factorial": r"\boxed{((10!)!)!}",
    "2004!": r"\boxed{2004!}",
    "huge power": r"\boxed{10^{10^{10}}}",
    "symbolic tower": r"\boxed{x^{9^{9^{9}}}}",
    "long sum": r"\boxed{\sum_{k=1}^{10^{9}} \sin(k^{k})}",
    "binomial": r"\boxed{\binom{10^8}{5\cdot 10^7}}",
    "open braces": r"\boxed" + "{" * 1_000_000,
    "open boxes": r"\boxed{" * 150_000,
    "nested fractions": r"\boxed{" + r"\frac{1}{1+" * 10_000 + "1" + "}" * 10_000 + "}",
    "parentheses": r"\boxed{" + "(" * 400 + "x" + ")" * 400 + "}",
    "null byte": "\\boxed{4\x002}",
    "right-to-left override": "\\boxed{\u202e24}",
    "terminal escape": "\\boxed{\x1b]0;title\x07\x1b[31m42}",
    "lone surrogate": "\\boxed{\ud800}",
    "digits": r"\boxed{" + "7" * 100_000 + "}",
    "thinking": "<think>" * 100_000,
    "spaces": r"\boxed{4" + " " * 1_000_000 + "2}",
    "announcements": "the answer is " * 70_000,
    "fences": "```a\n" * 200_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers(name: str, tmp_path: Path) -> None:
    assert grading_works()
    marker = tmp_path / "touched"
    for reference in ("42", "x+1"):
        start = time.monotonic()
        result = grade(HOSTILE[name].replace("{marker}", str(marker)), reference, seconds=SECONDS)
        assert time.monotonic() - start < WAITING * SECONDS + 2
        assert result.verdict != "right"
    assert not marker.exists()
    assert grading_works()


def test_a_killed_worker_is_replaced() -> None:
    assert grading_works()
    for worker in list(pool.shared_pool()._all):
        os.killpg(worker.process.pid, signal.SIGKILL)
    assert grading_works()


def test_a_stuck_worker_is_killed_from_outside() -> None:
    assert grading_works()
    (worker, *_) = pool.shared_pool()._all
    os.kill(worker.process.pid, signal.SIGSTOP)  # it does not receive its own alarm
    start = time.monotonic()
    result = grade(r"\boxed{x+2}", "1+x", seconds=0.5)
    assert result.verdict == "undecided"
    assert "time-out" in result.reason
    assert time.monotonic() - start < 10
    assert grading_works()


@pytest.mark.parametrize("who", ["command", "worker", "both"])
def test_a_suspension_changes_no_verdict(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # This process stands for the suspended command: its clock jumps, as after SIGSTOP and SIGCONT.
    assert grading_works()
    (worker, *_) = pool.shared_pool()._all
    real, asleep = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: real() + asleep)
    if who != "command":
        os.kill(worker.process.pid, signal.SIGSTOP)
    verdicts: list[str] = []
    thread = threading.Thread(target=lambda: verdicts.append(grade(r"\boxed{x+2}", "2+x", seconds=1).verdict))
    thread.start()
    time.sleep(0.1)
    if who != "worker":
        asleep = 3600.0
    time.sleep(1.5)
    os.kill(worker.process.pid, signal.SIGCONT)
    thread.join()
    assert verdicts == ["right"]


def test_a_stopped_command_and_its_workers_continue() -> None:
    # SIGSTOP for longer than the limit of the comparison, in the whole session, while a worker compares.
    code = (
        "import threading\nfrom spotcli.grading import grade\n"
        "assert grade(r'\\boxed{x+1}', '1+x').verdict == 'right'\nprint('ready', flush=True)\n"
        "for n in range(40): verdict = grade(rf'\\boxed{{(x+{n})^{{12}}}}', f'({n}+x)^{{12}}', seconds=1)\\\n"
        ".verdict; assert verdict == 'right', n\nprint('done')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as command:
        assert command.stdout
        assert command.stdout.readline() == "ready\n"
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in (command.pid, *map(int, children)):
                os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(2.5)
        assert command.stdout.read() == "done\n"
        assert command.wait() == 0


def test_threads_and_asyncio_give_the_same_verdicts() -> None:
    pairs = [(f"\\boxed{{x+{n}}}", f"{n % 3}+x") for n in range(24)]
    expected = [g.verdict for g in grade_many(pairs)]
    with ThreadPoolExecutor(8) as threads:
        assert [g.verdict for g in threads.map(lambda p: grade(*p), pairs)] == expected

    async def all_at_once() -> list[str]:
        return [g.verdict for g in await asyncio.gather(*(asyncio.to_thread(grade, *p) for p in pairs))]

    assert asyncio.run(all_at_once()) == expected


def test_a_forked_child_starts_its_own_pool() -> None:
    code = (
        "import os\nfrom spotcli.grading import grade\nfrom spotcli.grading.algebra import pool\n"
        "works = lambda: grade(r'\\boxed{x+1}', '1+x').verdict == 'right'\n"
        "assert works()\npid = os.fork()\n"
        "if pid == 0:\n    good = works(); pool.close_pool(); os._exit(not good)\n"
        "assert os.waitpid(pid, 0)[1] == 0\nassert works()\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=ENVIRONMENT,
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "ending", ["", "import os; os._exit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_no_worker_outlives_its_parent(ending: str) -> None:
    code = (
        "from spotcli.grading import grade\nfrom spotcli.grading.algebra import pool\n"
        "assert grade(r'\\boxed{x+1}', '1+x').verdict == 'right'\n"
        "print(*[w.process.pid for w in pool.shared_pool()._all], flush=True)\n" + ending
    )
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    pids = [int(pid) for pid in result.stdout.split()]
    assert pids
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie that init has not reaped yet is dead


def test_a_worker_cannot_leave_its_process() -> None:
    """A process locked down like a worker cannot open sockets, write files, start programs or evaluate text."""
    code = (
        "import socket, subprocess, os, sys\nfrom spotcli.grading.algebra import worker as w\n"
        "w._lock_down(4 << 30)\nblocked = 0\n"
        "tries = [lambda: socket.socket(), lambda: open('/tmp/x', 'w'), lambda: subprocess.Popen(['true']),\n"
        "         lambda: os.system('true'), lambda: eval('1+1'), lambda: exec('x=1'), lambda: os.fork(),\n"
        "         lambda: os.open('/tmp/x', os.O_CREAT | os.O_WRONLY), lambda: os.remove('/tmp/x')]\n"
        "for t in tries:\n    try: t()\n    except w.Forbidden: blocked += 1\n"
        "print(blocked, len(tries))"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    blocked, tried = result.stdout.split()
    assert blocked == tried


def test_a_worker_does_not_see_api_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    worker = pool._Worker()
    try:
        environment = Path(f"/proc/{worker.process.pid}/environ")
        if not environment.exists():
            pytest.skip("this system has no /proc")
        assert worker.ask("x", "x", seconds=1).same is True
        assert b"secret" not in environment.read_bytes()
    finally:
        worker.kill()
