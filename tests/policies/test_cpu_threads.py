"""The number of CPU threads, how they wait, and the warning about work that becomes slow."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from spotcli.policies.cpu_threads import Pace, allowed_processors, free_processors

CODE = """
import os
from spotcli.policies import cpu_threads
import torch
cpu_threads.use_free_processors()
cpu_threads.use_free_processors()
print(torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY"))
"""


def started(**variables: str) -> tuple[str, str]:
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    env = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", CODE], env=env | variables, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_free_processors_are_used_and_waiting_threads_do_not_spin() -> None:
    shown, message = started(CUDA_VISIBLE_DEVICES="")
    threads, policy = shown.split()
    assert 1 <= int(threads) <= allowed_processors()
    assert policy == "PASSIVE"
    assert message.count("processors are free") == 1


def test_the_users_variables_win() -> None:
    shown, message = started(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE")
    assert shown == "1 ACTIVE"
    assert "CPU threads: 1 (OMP_NUM_THREADS)" in message


def test_a_busy_processor_is_not_free() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * allowed_processors())]
    try:
        assert free_processors() == 1
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_work_that_becomes_far_slower_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    pace = Pace("training")
    for seconds in (1, 1, 1, 2, 9, 1, 9, 9):
        pace.add(100, seconds)
    assert capsys.readouterr().err == ""
    for _ in range(3):
        pace.add(100, 9)
    assert capsys.readouterr().err.count("training is 9 times slower than at the start") == 1
