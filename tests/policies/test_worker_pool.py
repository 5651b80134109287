"""Workers that pull from one queue: real processes, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.policies import answer_queue, worker_pool
from spotcli.policies.vllm import WORKER
from spotcli.policies.worker_pool import Job, WorkerPool
from tests.processes import MARK, alive, alive_after

FAKE = Path(__file__).parent / "fake_vllm"
POISON, HANG, REFUSED = 666, 667, 668
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 0, "max_tokens": 500, "stop_token_ids": [2]}
# The worker as it is, but with signs of life that are quicker than a test.
COMMAND = [sys.executable, "-P", "-c", "import vllm_worker as w; w.BEAT = 0.2; w.main()"]


def jobs(mark: str, folder: Path, number: int, **engine: Any) -> list[Job]:
    env = os.environ | {"PYTHONPATH": f"{FAKE}:{WORKER.parent}", MARK: mark}
    config = {"model": "some/model", "engine": engine, "sampling": SAMPLING}
    return [Job(COMMAND, env, config, folder / f"worker-{at}.log") for at in range(number)]


def asked(lengths: list[int], **special: int) -> Iterator[dict[str, Any]]:
    """Requests for answers of these lengths; ``n7=POISON`` makes the seventh a special one."""
    for n, length in enumerate(lengths):
        yield {"n": n, "ids": [length, special.get(f"n{n}", 0)], "seed": n}


def run(pool: WorkerPool) -> dict[int, dict[str, Any]]:
    """All rows by number; fails on a number that comes twice."""
    found: dict[int, dict[str, Any]] = {}
    try:
        for rows in pool.results():
            for row in rows:
                assert row["n"] not in found
                found[row["n"]] = row
    finally:
        pool.close()
    return found


def test_uneven_lengths_keep_every_worker_at_work(mark: str, tmp_path: Path) -> None:
    lengths = [1 + 37 * n % 60 for n in range(80)]
    found = run(WorkerPool(jobs(mark, tmp_path, 2, pace=0.005), asked(lengths), 80))
    assert [len(found[n]["ids"]) for n in range(80)] == lengths
    assert {row["finish"] for row in found.values()} == {"stop"}
    # 2,421 tokens at 4 a step of 5 ms are 3 s for one worker; the other one is there long before.
    assert len({row["text"] for row in found.values()}) == 2


def test_the_end_is_divided_evenly(mark: str, tmp_path: Path) -> None:
    # Each worker could hold all 20 at once. Answers take 2 s, so both are ready before the first one comes.
    found = run(WorkerPool(jobs(mark, tmp_path, 2, pace=0.01, max_num_seqs=64), asked([200] * 20), 20))
    assert sorted(Counter(row["text"] for row in found.values()).values()) == [10, 10]


@pytest.mark.parametrize("victim", ["engine", "core", "guard"])
def test_a_killed_workers_share_goes_back(mark: str, tmp_path: Path, victim: str) -> None:
    """The engine's process, the one that does its work, or the guard around them; each by kill -9."""
    lengths = [5 + n % 40 for n in range(120)]
    workers = WorkerPool(jobs(mark, tmp_path, 2, pace=0.005), asked(lengths), 120)
    found: dict[int, dict[str, Any]] = {}
    killed = False
    for row in (row for rows in workers.results() for row in rows):
        assert row["n"] not in found
        found[row["n"]] = row
        if not killed and len(found) >= 10:
            os.kill(relative(int(row["text"]), victim), signal.SIGKILL)
            killed = True
    workers.close()
    assert [len(found[n]["ids"]) for n in range(120)] == lengths


def relative(engine: int, victim: str) -> int:
    """The process that an engine was forked from, or the one that it started."""
    if victim == "guard":
        return int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
    if victim == "core":
        children = Path(f"/proc/{engine}/task/{engine}/children").read_text().split()
        return int(children[0])
    return engine


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_kills_whoever_takes_it_is_a_failure_and_the_rest_goes_on(
    mark: str, tmp_path: Path, workers: int
) -> None:
    lengths = [1 + n % 20 for n in range(60)]
    found = run(WorkerPool(jobs(mark, tmp_path, workers), asked(lengths, n7=POISON), 60))
    assert [n for n, row in found.items() if "failed" in row] == [7]
    assert found[7]["failed"] == "the engine dies of it"
    assert len(found) == 60


def test_a_request_that_the_engine_refuses_is_a_failure(mark: str, tmp_path: Path) -> None:
    found = run(WorkerPool(jobs(mark, tmp_path, 1), asked([3] * 10, n4=REFUSED), 10))
    assert found[4] == {"n": 4, "failed": "the engine refuses it"}
    assert sum("failed" in row for row in found.values()) == 1
    assert "request 4: Token id 668 is out of vocabulary" in (tmp_path / "worker-0.log").read_text()


def test_answers_are_cut_at_the_limit_or_the_context(mark: str, tmp_path: Path) -> None:
    # A context of 30 leaves 28 behind a prompt of two, and nothing behind one of 30.
    requests = [{"n": 0, "ids": [10, 0], "seed": 0}, {"n": 1, "ids": [40, 0], "seed": 0}]
    requests.append({"n": 2, "ids": [1] * 30, "seed": 0})
    found = run(WorkerPool(jobs(mark, tmp_path, 1, max_model_len=30), iter(requests), 3))
    assert (found[0]["finish"], len(found[0]["ids"])) == ("stop", 10)
    assert (found[1]["finish"], len(found[1]["ids"])) == ("length", 28)
    assert found[2]["failed"] == "the prompt fills the context"


def test_a_worker_that_hangs_is_ended_and_what_hung_it_is_a_failure(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "SILENCE", 1.5)
    found = run(WorkerPool(jobs(mark, tmp_path, 1), asked([3] * 10, n2=HANG), 10))
    assert [n for n, row in found.items() if "failed" in row] == [2]
    assert len(found) == 10


def test_a_worker_that_never_gets_ready_is_not_waited_for(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "SILENCE", 0.5)
    with pytest.raises(UserError, match="the engine does not live: it said nothing"):
        run(WorkerPool(jobs(mark, tmp_path, 1, start="hangs"), asked([3]), 1))


def test_workers_that_cannot_start_say_why(mark: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no room on the device") as caught:
        run(WorkerPool(jobs(mark, tmp_path, 2, start="fails"), asked([3] * 4), 4))
    assert "worker-" in str(caught.value.cure)


def test_an_interpreter_without_vllm_is_told_apart(mark: str, tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text("raise ModuleNotFoundError(\"No module named 'vllm'\")")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{WORKER.parent}", MARK: mark}
    with pytest.raises(UserError, match="No module named 'vllm'") as caught:
        run(WorkerPool([Job(COMMAND, env, {}, tmp_path / "log")], asked([3]), 1))
    assert "pip install vllm" in str(caught.value.cure)
    with pytest.raises(UserError, match="cannot be started"):
        run(WorkerPool([Job([str(tmp_path / "python")], env, {}, tmp_path / "log")], asked([3]), 1))


def test_one_worker_that_cannot_start_does_not_hold_up_the_other(mark: str, tmp_path: Path) -> None:
    (bad,), (good,) = jobs(mark, tmp_path, 1, start="fails"), jobs(mark, tmp_path, 1)
    found = run(WorkerPool([bad, Job(good.command, good.env, good.config, tmp_path / "good.log")], asked([3] * 50), 50))
    assert sorted(found) == list(range(50))


def test_stopping_keeps_what_is_finished(mark: str, tmp_path: Path) -> None:
    lengths = [1 + 100 * (n % 2) for n in range(1000)]
    workers = WorkerPool(jobs(mark, tmp_path, 2, pace=0.01), asked(lengths), 1000)
    groups = workers.results()
    found = next(groups)
    workers.stop()
    since = time.monotonic()
    found += [row for rows in groups for row in rows]
    assert time.monotonic() - since < worker_pool.GRACE
    assert len({row["n"] for row in found}) == len(found) < 1000
    workers.close()
    assert alive_after(mark, 1) == []


def test_closing_leaves_no_process(mark: str, tmp_path: Path) -> None:
    workers = WorkerPool(jobs(mark, tmp_path, 2, pace=0.01), asked([50] * 1000), 1000)
    next(workers.results())
    # Two guards, two engines, two cores.
    assert len(alive(mark)) == 6
    workers.close()
    assert alive_after(mark, 1) == []


def test_closing_while_they_start_leaves_no_process(mark: str, tmp_path: Path) -> None:
    workers = WorkerPool(jobs(mark, tmp_path, 2, start="hangs"), asked([50]), 1)
    workers._thread.start()
    while len(alive(mark)) < 4:
        time.sleep(0.01)
    workers.close()
    assert alive_after(mark, 1) == []


def test_an_engine_whose_guard_is_killed_ends_even_while_it_starts(mark: str, tmp_path: Path) -> None:
    workers = WorkerPool(jobs(mark, tmp_path, 1, start="hangs"), asked([50]), 1)
    workers._thread.start()
    while len(old := alive(mark)) < 2:
        time.sleep(0.01)
    # The engine was forked from its guard.
    engine = next(pid for pid in old if relative(pid, "guard") in old)
    os.kill(relative(engine, "guard"), signal.SIGKILL)
    deadline = time.monotonic() + 5
    while set(old) & set(alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(old) & set(alive(mark))
    while len(alive(mark)) < 2:  # started anew
        assert time.monotonic() < deadline + 10
        time.sleep(0.05)
    workers.close()
    assert alive_after(mark, 1) == []


@pytest.mark.parametrize("error", [UserError("row 5 is none"), ValueError("a fault of ours")])
def test_an_error_in_the_stream_of_requests_is_raised(mark: str, tmp_path: Path, error: Exception) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from asked([3] * 50)
        raise error

    with pytest.raises(type(error), match=str(error)):
        run(WorkerPool(jobs(mark, tmp_path, 2), broken(), 1000))


def test_requests_are_read_only_as_far_as_there_is_room(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_queue, "WAITING", 20)
    read = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal read
        for request in asked([1] * 5000):
            read += 1
            yield request

    workers = WorkerPool(jobs(mark, tmp_path, 1), counted(), 5000)
    groups = workers.results()
    got = len(next(groups))
    time.sleep(1)
    # Nobody takes what comes: 20 wait, one more is being handed over, and the worker holds 4 and 2 more.
    assert read <= got + 20 + 1 + 6
    assert got + sum(map(len, groups)) == 5000
    workers.close()


def test_killing_the_command_leaves_no_process(mark: str, tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from tests.policies.test_worker_pool import WorkerPool, asked, jobs
        two = jobs({mark!r}, Path({str(tmp_path)!r}), 2, pace=0.01)
        for rows in WorkerPool(two, asked([50] * 1000), 1000).results():
            print("answered", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        process.stdout.readline()
        assert len(alive(mark)) == 6
        process.kill()
    assert alive_after(mark, 8) == []
