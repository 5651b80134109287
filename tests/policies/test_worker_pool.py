"""Workers that pull from one queue, as real processes that are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.policies import answer_queue, worker_pool
from spotcli.policies.vllm import WORKER
from spotcli.policies.vllm_worker import WorkerAnswer, WorkerConfig, WorkerFailure, WorkerRequest
from spotcli.policies.worker_pool import WorkerJob, WorkerPool, WorkerResult
from tests.processes import MARK, alive, alive_after

FAKE = Path(__file__).parent / "fake_vllm"
POISON, HANG, REFUSED = 666, 667, 668
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 0, "max_tokens": 500, "stop_token_ids": [2]}
COMMAND = [sys.executable, "-P", "-c", "import vllm_worker as w; w.BEAT = 0.2; w.main()"]
"""The real worker, with signs of life that come faster than a test ends."""


def jobs(mark: str, folder: Path, number: int, **engine: Any) -> list[WorkerJob]:
    env = os.environ | {"PYTHONPATH": f"{FAKE}:{WORKER.parent}", MARK: mark}
    config = WorkerConfig("some/model", engine, SAMPLING)
    return [WorkerJob(COMMAND, env, config, folder / f"worker-{index}.log") for index in range(number)]


def requests(lengths: list[int], **special: int) -> Iterator[WorkerRequest]:
    """Requests for answers of these lengths; ``n7=POISON`` adds a special token to number 7."""
    for number, length in enumerate(lengths):
        yield WorkerRequest(number, [length, special.get(f"n{number}", 0)], seed=number)


def run(pool: WorkerPool) -> dict[int, WorkerResult]:
    """All results by number; fails on a number that comes twice."""
    results: dict[int, WorkerResult] = {}
    try:
        for group in pool.results():
            for result in group:
                assert result.number not in results
                results[result.number] = result
    finally:
        pool.close()
    return results


def answers_of(results: dict[int, WorkerResult]) -> list[WorkerAnswer]:
    """The results in order; fails where one is a failure."""
    answers = [results[number] for number in range(len(results))]
    assert all(isinstance(answer, WorkerAnswer) for answer in answers)
    return [answer for answer in answers if isinstance(answer, WorkerAnswer)]


def failures_of(results: dict[int, WorkerResult]) -> dict[int, str]:
    """The reasons of the failures by number."""
    return {number: result.reason for number, result in results.items() if isinstance(result, WorkerFailure)}


def test_uneven_lengths_keep_every_worker_busy(mark: str, tmp_path: Path) -> None:
    lengths = [1 + 37 * number % 60 for number in range(80)]
    answers = answers_of(run(WorkerPool(jobs(mark, tmp_path, 2, pace=0.005), requests(lengths), 80)))
    assert [len(answer.token_ids) for answer in answers] == lengths
    assert {answer.finish_reason for answer in answers} == {"stop"}
    # 2,421 tokens at 4 per step of 5 ms take one worker 3 s; the other one is ready long before.
    assert len({answer.text for answer in answers}) == 2


def test_the_last_requests_are_divided_evenly(mark: str, tmp_path: Path) -> None:
    # Each worker could hold all 20 at once. Answers take 2 s, so both workers are ready before the first answer.
    pool = WorkerPool(jobs(mark, tmp_path, 2, pace=0.01, max_num_seqs=64), requests([200] * 20), 20)
    assert sorted(Counter(answer.text for answer in answers_of(run(pool))).values()) == [10, 10]


@pytest.mark.parametrize("victim", ["engine", "core", "guard"])
def test_requests_of_a_killed_worker_are_queued_again(mark: str, tmp_path: Path, victim: str) -> None:
    """The process of the engine, its child process, or the guard around them; each by kill -9."""
    lengths = [5 + number % 40 for number in range(120)]
    workers = WorkerPool(jobs(mark, tmp_path, 2, pace=0.005), requests(lengths), 120)
    results: dict[int, WorkerResult] = {}
    killed = False
    for result in (result for group in workers.results() for result in group):
        assert result.number not in results
        results[result.number] = result
        if not killed and len(results) >= 10:
            assert isinstance(result, WorkerAnswer)
            os.kill(relative(int(result.text), victim), signal.SIGKILL)
            killed = True
    workers.close()
    assert [len(answer.token_ids) for answer in answers_of(results)] == lengths


def relative(engine: int, victim: str) -> int:
    """The process that an engine was forked from (guard), or the one that it started (core)."""
    if victim == "guard":
        return int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
    if victim == "core":
        children = Path(f"/proc/{engine}/task/{engine}/children").read_text().split()
        return int(children[0])
    return engine


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_crashes_every_engine_is_a_failure_and_the_others_are_answered(
    mark: str, tmp_path: Path, workers: int
) -> None:
    lengths = [1 + number % 20 for number in range(60)]
    results = run(WorkerPool(jobs(mark, tmp_path, workers), requests(lengths, n7=POISON), 60))
    assert failures_of(results) == {7: "the engine crashed on this request"}
    assert len(results) == 60


def test_a_request_that_the_engine_rejects_is_a_failure(mark: str, tmp_path: Path) -> None:
    results = run(WorkerPool(jobs(mark, tmp_path, 1), requests([3] * 10, n4=REFUSED), 10))
    assert failures_of(results) == {4: "rejected by the engine"}
    assert "request 4: Token id 668 is out of vocabulary" in (tmp_path / "worker-0.log").read_text()


def test_answers_end_at_the_limit_or_the_context(mark: str, tmp_path: Path) -> None:
    # A context of 30 leaves 28 tokens after a prompt of two, and none after a prompt of 30.
    prompts = [WorkerRequest(0, [10, 0], 0), WorkerRequest(1, [40, 0], 0), WorkerRequest(2, [1] * 30, 0)]
    results = run(WorkerPool(jobs(mark, tmp_path, 1, max_model_len=30), iter(prompts), 3))
    assert failures_of(results) == {2: "the prompt fills the context"}
    answers = [results[number] for number in (0, 1)]
    lengths = [(item.finish_reason, len(item.token_ids)) for item in answers if isinstance(item, WorkerAnswer)]
    assert lengths == [("stop", 10), ("length", 28)]


def test_a_worker_that_hangs_is_ended_and_its_request_is_a_failure(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "SILENCE", 1.5)
    results = run(WorkerPool(jobs(mark, tmp_path, 1), requests([3] * 10, n2=HANG), 10))
    assert list(failures_of(results)) == [2]
    assert len(results) == 10


def test_a_worker_that_is_never_ready_is_given_up(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "SILENCE", 0.5)
    with pytest.raises(UserError, match="the engine failed to start: its log is empty"):
        run(WorkerPool(jobs(mark, tmp_path, 1, start="hangs"), requests([3]), 1))


def test_the_error_has_the_reason_why_workers_cannot_start(mark: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="out of device memory") as caught:
        run(WorkerPool(jobs(mark, tmp_path, 2, start="fails"), requests([3] * 4), 4))
    assert "worker-" in str(caught.value.cure)


def test_an_interpreter_without_vllm_has_its_own_cure(mark: str, tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text("raise ModuleNotFoundError(\"No module named 'vllm'\")")
    env, config = os.environ | {"PYTHONPATH": f"{tmp_path}:{WORKER.parent}", MARK: mark}, WorkerConfig("m", {}, {})
    with pytest.raises(UserError, match="No module named 'vllm'") as caught:
        run(WorkerPool([WorkerJob(COMMAND, env, config, tmp_path / "log")], requests([3]), 1))
    assert "pip install vllm" in str(caught.value.cure)
    with pytest.raises(UserError, match="failed to start the interpreter"):
        run(WorkerPool([WorkerJob([str(tmp_path / "python")], env, config, tmp_path / "log")], requests([3]), 1))


def test_the_run_continues_without_a_worker_that_cannot_start(mark: str, tmp_path: Path) -> None:
    (bad,), (good,) = jobs(mark, tmp_path, 1, start="fails"), jobs(mark, tmp_path, 1)
    workers = [bad, replace(good, log=tmp_path / "good.log")]
    results = run(WorkerPool(workers, requests([3] * 50), 50))
    assert sorted(results) == list(range(50))


def test_stopping_keeps_finished_answers(mark: str, tmp_path: Path) -> None:
    lengths = [1 + 100 * (number % 2) for number in range(1000)]
    workers = WorkerPool(jobs(mark, tmp_path, 2, pace=0.01), requests(lengths), 1000)
    groups = workers.results()
    results = next(groups)
    workers.stop()
    since = time.monotonic()
    results += [result for group in groups for result in group]
    assert time.monotonic() - since < worker_pool.GRACE
    assert len({result.number for result in results}) == len(results) < 1000
    workers.close()
    assert alive_after(mark, 1) == []


def test_closing_leaves_no_process(mark: str, tmp_path: Path) -> None:
    workers = WorkerPool(jobs(mark, tmp_path, 2, pace=0.01), requests([50] * 1000), 1000)
    next(workers.results())
    # Two guards, two engines, two cores.
    assert len(alive(mark)) == 6
    workers.close()
    assert alive_after(mark, 1) == []


def test_closing_while_workers_start_leaves_no_process(mark: str, tmp_path: Path) -> None:
    workers = WorkerPool(jobs(mark, tmp_path, 2, start="hangs"), requests([50]), 1)
    workers._thread.start()
    while len(alive(mark)) < 4:
        time.sleep(0.01)
    workers.close()
    assert alive_after(mark, 1) == []


def test_an_engine_ends_with_its_guard_even_while_it_starts(mark: str, tmp_path: Path) -> None:
    workers = WorkerPool(jobs(mark, tmp_path, 1, start="hangs"), requests([50]), 1)
    workers._thread.start()
    while len(first := alive(mark)) < 2:
        time.sleep(0.01)
    # The engine was forked from its guard.
    engine = next(pid for pid in first if relative(pid, "guard") in first)
    os.kill(relative(engine, "guard"), signal.SIGKILL)
    deadline = time.monotonic() + 5
    while set(first) & set(alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(first) & set(alive(mark))
    while len(alive(mark)) < 2:  # restarted
        assert time.monotonic() < deadline + 10
        time.sleep(0.05)
    workers.close()
    assert alive_after(mark, 1) == []


@pytest.mark.parametrize("error", [UserError("row 5 is invalid"), ValueError("a fault of ours")])
def test_an_error_in_the_stream_of_requests_is_raised(mark: str, tmp_path: Path, error: Exception) -> None:
    def broken() -> Iterator[WorkerRequest]:
        yield from requests([3] * 50)
        raise error

    with pytest.raises(type(error), match=str(error)):
        run(WorkerPool(jobs(mark, tmp_path, 2), broken(), 1000))


def test_requests_are_read_only_as_far_as_there_is_capacity(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_queue, "WAITING", 20)
    read = 0

    def counted() -> Iterator[WorkerRequest]:
        nonlocal read
        for request in requests([1] * 5000):
            read += 1
            yield request

    workers = WorkerPool(jobs(mark, tmp_path, 1), counted(), 5000)
    groups = workers.results()
    received = len(next(groups))
    time.sleep(1)
    # No results are read: 20 wait, one more is being handed over, and the worker holds 4 and 2 more.
    assert read <= received + 20 + 1 + 6
    assert received + sum(map(len, groups)) == 5000
    workers.close()


def test_killing_the_command_leaves_no_process(mark: str, tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from tests.policies.test_worker_pool import WorkerPool, jobs, requests
        two = jobs({mark!r}, Path({str(tmp_path)!r}), 2, pace=0.01)
        for group in WorkerPool(two, requests([50] * 1000), 1000).results():
            print("answered", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        process.stdout.readline()
        assert len(alive(mark)) == 6
        process.kill()
    assert alive_after(mark, 8) == []
