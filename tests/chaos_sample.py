"""Chaos test of sampling: kills at random moments and faults of the endpoint must not damage the results.

    python tests/chaos_sample.py api --rows 600 --kills 20 --seed 0
    python tests/chaos_sample.py vllm --python PYTHON --kills 20 --seed 0          PYTHON has vLLM

api     the command with a scripted endpoint that answers slowly or with 429, 500 and resets, killed repeatedly
vllm    real vLLM with SmolLM2 and two workers; the command and processes of the workers (the engine, its core and the
        guard around them) are killed while they start and while they answer

At the end, the file must have every (id, trial) once, with the fields that the transformers engine writes; Ctrl-C must
end the command with exit code 3; and no process that any of the commands started may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fake_provider import FakeProvider, Step
from tests.processes import Family

KEY = "sk-chaos-0123456789abcdef"
CONCURRENCY = 32
GONE = 15
"""Seconds within which all processes of a command have to end."""


class Job:
    """One folder, and the command that is killed and repeated in it."""

    def __init__(self, folder: Path, options: list[str], env: dict[str, str]) -> None:
        self.folder = folder
        self.options = options
        self.env = os.environ | env
        self.output = ""
        self.family = Family()
        self.commands = 0
        folder.mkdir(exist_ok=True)

    def start(self) -> subprocess.Popen[bytes]:
        self.commands += 1
        log = (self.folder / f"command-{self.commands}.txt").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "spotcli", "sample", *self.options],
                cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, env=self.env,
            )  # fmt: skip

    def log(self) -> str:
        return (self.folder / f"command-{self.commands}.txt").read_text(errors="replace")

    def lines(self) -> int:
        path = self.folder / "samples.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "samples.jsonl").read_bytes().splitlines()]

    def finish(self) -> None:
        """Repeat the command until it is done; it retries failed requests."""
        for _ in range(10):
            process = self.start()
            while process.poll() is None:
                self.family.look(process.pid)
                time.sleep(0.2)
            self.none_left()
            if process.returncode != 3:
                break
        assert process.returncode == 0, (process.returncode, self.log()[-2000:])

    def none_left(self) -> None:
        left = self.family.left(GONE)
        assert not left, f"processes are left: {left}"


def check_rows(rows: list[dict[str, Any]], problems: int, trials: int) -> None:
    keys = Counter((row["id"], row["trial"]) for row in rows)
    assert set(keys.values()) == {1}, [key for key, count in keys.items() if count > 1]
    assert len(keys) == problems * trials, (len(keys), problems * trials)
    assert {trial for _, trial in keys} == set(range(trials))


# The api engine


def steps(number: int, chance: random.Random) -> list[Step]:
    """Some faults, then the final response, which is repeated."""
    usage = {"prompt_tokens": 40, "completion_tokens": chance.randint(5, 25)}
    delay = chance.choices([chance.uniform(0, 0.1), chance.uniform(0.5, 1.5)], [95, 5])[0]
    good: Step = {"text": f"It is \\boxed{{{number}}}.", "usage": usage, "delay": delay}
    final = chance.choices([good, good | {"finish": "length"}, good | {"text": "I do not know."}], [90, 5, 5])[0]
    faults: list[Step] = [
        {"status": 429, "headers": {"retry-after": "0.2"}},
        {"status": 429},
        {"status": 500, "body": f"<html>{KEY}</html>"},
        {"status": 503, "body": {"error": {"message": f"overloaded; your key is {KEY}"}}},
        {"reset": True},
        {"half": True},
        {"garbage": True},
    ]
    return [*chance.choices(faults, k=chance.choices([0, 1, 2], [80, 15, 5])[0]), final]


def api(options: argparse.Namespace, folder: Path, chance: random.Random) -> None:
    answers = {f"row-{number:05d}": steps(number, chance) for number in range(options.rows)}
    rows = [{"id": tag, "prompt": f"{tag}: which number?", "answer": str(int(tag[4:]))} for tag in answers]
    problems = "".join(json.dumps(row) + "\n" for row in rows)
    trials = 2

    def api_job(name: str, provider: FakeProvider) -> Job:
        job = Job(
            folder / name,
            ["--model", "openai/m", "--engine", "api", "--trials", str(trials), "--max-new-tokens", "25",
             "-s", f"sample.base_url={provider.base_url}", "-s", f"sample.concurrency={CONCURRENCY}",
             "-s", "sample.retries=8"],
            {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"},
        )  # fmt: skip
        (job.folder / "problems.jsonl").write_text(problems)
        return job

    def sorted_rows(job: Job) -> list[str]:
        return sorted(json.dumps(row) for row in job.rows())

    with FakeProvider({tag: list(responses) for tag, responses in answers.items()}, key=KEY) as provider:
        calm = api_job("calm", provider)
        since = time.monotonic()
        calm.finish()
        print(f"undisturbed: {len(provider.requests)} requests, {calm.commands} commands, "
              f"{time.monotonic() - since:.0f} s")  # fmt: skip
        check_rows(calm.rows(), options.rows, trials)
        faults = Counter(
            str(request["step"].get("status") or next(iter(request["step"]), "")) for request in provider.requests
        )
        expected = len(provider.requests)

    with FakeProvider({tag: list(responses) for tag, responses in answers.items()}, key=KEY) as provider:
        rough = api_job("rough", provider)
        kills = Counter[str]()
        since = time.monotonic()
        while kills["SIGKILL"] < options.kills:
            process = rough.start()
            # On average, the signals, of which every fifth is a Ctrl-C, divide the job evenly.
            until = len(provider.requests) + chance.randint(0, 8 * expected // (5 * (options.kills + 1)))
            while len(provider.requests) < until and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
            rough.family.look(process.pid)
            if process.poll() is not None:
                break
            how = signal.SIGINT if kills.total() % 5 == 4 else signal.SIGKILL
            process.send_signal(how)
            code = process.wait(60)
            # Before the first request, an interrupt ends the command like any Python program.
            assert code in ((-9,) if how == signal.SIGKILL else (3, 130, -2)), (code, rough.log()[-2000:])
            kills[f"{signal.Signals(how).name}"] += 1
            rough.none_left()
        rough.finish()
        again = len(provider.requests) - expected
    check_rows(rough.rows(), options.rows, trials)
    assert sorted_rows(rough) == sorted_rows(calm)
    assert again <= kills.total() * CONCURRENCY, (again, kills)
    print(f"{dict(kills)}: the same {len(rough.rows())} rows, no duplicates; {again} requests were sent again")
    print(f"{rough.commands} commands, {time.monotonic() - since:.0f} s; none of {len(rough.family)} processes left")
    print(f"faults: {dict(faults)}; truncated: {sum(row['finish_reason'] == 'length' for row in rough.rows())}")
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert not [file for file in files if KEY in file.read_text(errors="replace")]
    print(f"the key is in none of {len(files)} files")


# The vllm engine


def victim(process: subprocess.Popen[bytes], kind: str, chance: random.Random) -> int | None:
    """A process of the kind, or None before it starts. A worker is guard -> engine -> core and its helpers."""
    if kind == "command":
        return process.pid
    pids = [pid for pid in children(process.pid) if b"vllm_worker" in cmdline(pid)]
    if kind != "guard":
        pids = [pid for guard in pids for pid in children(guard)]
    if kind == "core":
        pids = [pid for engine in pids for pid in children(engine) if b"resource_tracker" not in cmdline(pid)]
    return chance.choice(pids) if pids else None


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()]  # fmt: skip
    except OSError:
        return []


def vllm(options: argparse.Namespace, folder: Path, chance: random.Random) -> None:
    engine = "{max_model_len: 512, max_num_seqs: 8, enforce_eager: true}"
    problems, trials = options.rows, 1
    common = ["builtin:arithmetic", "--model", "builtin:smollm2-135m", "--limit", str(problems)]
    common += ["--max-new-tokens", "40"]
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    job = Job(folder / "vllm", [], env)
    vllm_options = ["--engine", "vllm", "-s", f"sample.python={options.python}", "-s", "sample.workers=2"]

    def wanted(trials: int) -> list[str]:
        return [*common, *vllm_options, "-s", f"sample.vllm={engine}", "--trials", str(trials)]

    kinds = ["command", "engine", "core", "guard"]
    kills: Counter[str] = Counter()
    since = time.monotonic()
    while kills.total() < options.kills:
        job.options = wanted(trials)
        before, process = job.lines(), job.start()
        while process.poll() is None and kills.total() < options.kills:
            kind = chance.choices(kinds, [40, 25, 25, 10])[0]
            patience = time.monotonic() + chance.uniform(1, 50)
            while time.monotonic() < patience and process.poll() is None:
                job.family.look(process.pid)
                time.sleep(0.2)
            pid = victim(process, kind, chance)
            if pid is None or process.poll() is not None:
                continue
            job.family.look(process.pid)
            moment = "answering" if job.lines() > before else "starting"
            os.kill(pid, signal.SIGKILL)
            kills[f"{kind} {moment}"] += 1
            print(
                f"{time.monotonic() - since:5.0f} s  {job.lines():5} rows  kill -9 of the {kind} while {moment}",
                flush=True,
            )
            if kind == "command":
                assert process.wait(30) == -9
                job.none_left()
            before = job.lines()
        if process.poll() is None:
            continue
        if process.returncode == 0:
            trials += 1  # the command finished before enough kills, so ask for more answers
        else:
            assert process.returncode in (3, -9), (process.returncode, job.log()[-2000:])
        job.none_left()
    # If the last victim was a worker, the command has to recover by itself.
    while process.poll() is None:
        job.family.look(process.pid)
        time.sleep(0.2)
    assert process.returncode in (0, 3, -9), (process.returncode, job.log()[-2000:])
    job.none_left()
    job.options = wanted(trials)
    job.finish()
    check_rows(job.rows(), problems, trials)

    job.options = wanted(trials + 1)
    before, process = job.lines(), job.start()
    while job.lines() == before:
        job.family.look(process.pid)
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 3, job.log()[-2000:]
    job.none_left()
    print(f"Ctrl-C while answering: exit code 3, {job.lines() - before} of {problems} new rows kept")
    job.finish()
    trials += 1
    rows = job.rows()
    check_rows(rows, problems, trials)
    print(f"{dict(kills)}: {len(rows)} rows of {trials} trials, no duplicates")
    print(f"{job.commands} commands, {time.monotonic() - since:.0f} s; none of {len(job.family)} processes left")

    other = Job(folder / "transformers", [*common, "--engine", "transformers", "--limit", "8"], env)
    other.finish()
    fields = {(tuple(row), tuple(row["sampling"])) for row in other.rows()}
    assert {(tuple(row), tuple(row["sampling"])) for row in rows} == fields, fields
    print(f"the same fields as from the transformers engine: {', '.join(rows[0])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=("api", "vllm"))
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has vLLM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spot-chaos-") as folder:
        {"api": api, "vllm": vllm}[options.engine](options, Path(folder), random.Random(options.seed))


if __name__ == "__main__":
    main()
