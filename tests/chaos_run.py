"""`spot run` as a whole, interrupted at random moments in every way, ends with the files of an undisturbed run.

    python tests/chaos_run.py --kills 30 --seed 0
    python tests/chaos_run.py --quick                      3 interruptions
    python tests/chaos_run.py --way "kill -9"              interruptions of this kind alone

A tiny model answers problems, a scripted provider corrects the answers, two processes train, and both models are
evaluated: all stages, about half a minute undisturbed. Each command has a terminal of its own, as a person's has, and
is interrupted by ``kill -9`` of the command, of its process group or of one of its child processes (a training process,
accelerate's launcher, a grading worker), by Ctrl-C once or twice, by SIGTERM, or by closing its terminal. Then the same
command is started again, until it ends with exit code 0.

After each interruption no process of the command may be left; Ctrl-C, SIGTERM and SIGHUP must end it with exit code 3
and a message about what is kept, and the terminal's cursor must be visible. At the end, all files must be equal to
those of the undisturbed run, except for times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fake_provider import FakeProvider, Step
from tests.terminals import Terminal
from tests.tiny_model import teach, write_tiny_model

KEY = "sk-chaos-0123456789abcdef"
CONCURRENCY = 8
PATIENCE = 90
"""Seconds within which a command has to end after an interruption."""
RECIPE = """
name: chaos
model: {model}
seed: 3
sample: {{problems: {problems}, temperature: 1.0, top_p: 1.0, max_new_tokens: 64, batch_size: 8, trials: 2}}
rectify:
  oracle: openai/gpt-4o
  base_url: {base_url}
  concurrency: {concurrency}
  gamma: 1.0
  retries: 8
  price_in: 0
  price_out: 10
train:
  processes: {processes}
  learning_rate: 1e-3
  batch_size: 8
  num_train_epochs: 3
  save_steps: 3
  check_every: 5
  check_problems: 4
eval: {{limit: 24, max_new_tokens: 24, batch_size: 8}}
"""
STARTS = re.compile(r"(.*_)?seconds|.*_per_second|started|finished|at|resumed_from|new_answers|engine|tokens")
"""Keys whose values depend on the time, or on what the last start had left to do."""
PAGE_TIMES = re.compile(r'(data-value="[\d.]+">)?[\d.]+ (s|min|h)\b|\d+:\d\d:\d\d\b|\d{4}-\d\d-\d\d \d\d:\d\d UTC')
"""Times on the pages of a run and of its evaluation."""


# The experiment


def problem(number: int) -> dict[str, str]:
    """An addition, or a product that is graded in a worker process because its answer is a formula."""
    a, b = 10 + number % 83, 11 + number % 57
    if number % 2:
        return {"id": tag(number), "prompt": f"{tag(number)}: what is {a} + {b}?", "answer": str(a + b)}
    return {"id": tag(number), "prompt": f"{tag(number)}: expand {b}(x + {a}).", "answer": f"{b}(x + {a})"}


def tag(number: int) -> str:
    return f"row-{number:05d}"


def solution(number: int) -> str:
    a, b = 10 + number % 83, 11 + number % 57
    if number % 2:
        return f"{a} + {b} = {a + b}\nThe answer is \\boxed{{{a + b}}}."
    return f"{b}(x + {a}) = {b}x + {b * a}\nThe answer is \\boxed{{{b}x + {b * a}}}."


def steps(number: int, chance: random.Random) -> list[Step]:
    """Some faults of the provider, then the correction, which repeats."""
    final: Step = {
        "text": f"<answer-{{fence}}>\n{solution(number)}\n</answer-{{fence}}>",
        "delay": chance.uniform(0.1, 0.8),
        "usage": {"prompt_tokens": 400, "completion_tokens": 50 + number},
    }
    faults: list[Step] = [
        {"status": 429, "headers": {"retry-after": "0.2"}},
        {"status": 500, "body": f"<html>{KEY}</html>"},
        {"reset": True},
        {"garbage": True},
    ]
    return [*chance.choices(faults, k=chance.choices([0, 1], [85, 15])[0]), final]


class Experiment:
    """A recipe with its model, problems and provider, and the folders of its runs."""

    def __init__(self, folder: Path, rows: int, processes: int, chance: random.Random) -> None:
        self.folder = folder
        self.answers = {tag(number): steps(number, chance) for number in range(rows)}
        self.provider = FakeProvider(self.answers, key=KEY)
        self.rows = rows
        self.processes = processes

    def prepare(self) -> None:
        """Train the model and write the recipe; the provider must be running."""
        model = write_tiny_model(self.folder / "model")
        examples = [(problem(number)["prompt"], solution(number)) for number in range(1000, 2000)]
        teach(model, examples, steps=120)
        problems = self.folder / "problems.jsonl"
        problems.write_text("".join(json.dumps(problem(number)) + "\n" for number in range(self.rows)))
        recipe = RECIPE.format(
            model=model,
            problems=problems,
            base_url=self.provider.base_url,
            concurrency=CONCURRENCY,
            processes=self.processes,
        )
        (self.folder / "recipe.yaml").write_text(recipe)

    def start(self, log: str) -> Terminal:
        """Start the command; its folder is ``run``."""
        command = [sys.executable, "-m", "spotcli", "run", "recipe.yaml", "-o", "run", "--json"]
        env = {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return Terminal(command, self.folder, self.folder / f"{log}.txt", env)


# Interruptions


def kill(terminal: Terminal, chance: random.Random) -> set[int]:
    os.kill(terminal.pid, signal.SIGKILL)
    return {-signal.SIGKILL}


def kill_group(terminal: Terminal, chance: random.Random) -> set[int]:
    os.killpg(terminal.pid, signal.SIGKILL)
    return {-signal.SIGKILL}


def terminate(terminal: Terminal, chance: random.Random) -> set[int]:
    os.kill(terminal.pid, signal.SIGTERM)
    return {3}


def ctrl_c(terminal: Terminal, chance: random.Random) -> set[int]:
    terminal.ctrl_c()
    return {3}


def ctrl_c_twice(terminal: Terminal, chance: random.Random) -> set[int]:
    terminal.ctrl_c()
    terminal.wait(chance.uniform(0, 1))
    if terminal.code is None:
        terminal.ctrl_c()
    return {3}


def hang_up(terminal: Terminal, chance: random.Random) -> set[int]:
    terminal.hang_up()
    return {3}


def kill_child(terminal: Terminal, chance: random.Random) -> set[int]:
    """Kill a child process; a grading worker is replaced, training ends with an error."""
    while terminal.poll() is None:
        if kinds := terminal.children():
            kind = chance.choice(sorted(kinds))
            os.kill(chance.choice(kinds[kind]), signal.SIGKILL)
            terminal.killed = kind
            break
    return {0, 1}


WAYS: dict[str, Callable[[Terminal, random.Random], set[int]]] = {
    "kill -9": kill,
    "kill -9 of the group": kill_group,
    "kill -9 of a child": kill_child,
    "SIGTERM": terminate,
    "Ctrl-C": ctrl_c,
    "Ctrl-C twice": ctrl_c_twice,
    "closed terminal": hang_up,
}


# Comparison


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a run without what depends on the starts: name -> content."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "seconds.json"]
    files = {str(path.relative_to(folder)): path for path in paths}
    return {name: content(path) for name, path in files.items()}


def content(path: Path) -> Any:
    if path.name.endswith(".replies.jsonl"):
        return replies(path)
    if path.suffix == ".json":
        value = comparable(json.loads(path.read_text()))
        if path.name == "spot-state.json":
            del value["files"]["trainer_state.json"]  # its size: it contains times
        return value
    if path.suffix == ".jsonl":
        return [comparable(json.loads(line)) for line in path.read_bytes().splitlines()]
    if path.name == "README.md":
        return re.sub(r"\d+\.\d+|\d+ s\b|\d{4}-\d\d-\d\d", "?", path.read_text())
    if path.suffix == ".html":
        return PAGE_TIMES.sub("?", path.read_text()).splitlines()
    return path.read_bytes()


def replies(path: Path) -> list[Any]:
    """The replies in a journal in the order of their keys; the order of the file is that in which they came."""
    rows = [comparable(json.loads(line)) for line in path.read_bytes().splitlines()]
    rows = [row for row in rows if row["kind"] == "reply"]
    # The fence is random.
    return sorted(
        (
            {name: row[name] for name in ("key", "id", "trial", "attempt", "finish_reason", "usage", "cost")}
            for row in rows
        ),
        key=lambda row: (row["id"], row["trial"], row["attempt"]),
    )


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items() if not STARTS.fullmatch(name)}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def differences(calm: dict[str, Any], rough: dict[str, Any]) -> list[str]:
    """What differs between two runs, by file."""
    lines = [f"{name}: missing" for name in calm.keys() - rough.keys()]
    lines += [f"{name}: unexpected" for name in rough.keys() - calm.keys()]
    for name in sorted(calm.keys() & rough.keys()):
        if calm[name] != rough[name]:
            lines.append(f"{name}: {first_difference(calm[name], rough[name])}")
    return lines


def first_difference(one: Any, other: Any, path: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                return first_difference(one.get(name), other.get(name), f"{path}.{name}")
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{path}: {len(one)} and {len(other)} rows"
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return first_difference(left, right, f"{path}[{index}]")
    left, right = str(one), str(other)
    start = max(0, next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), 0) - 40)
    return f"{path}: {left[start : start + 120]!r} and {right[start : start + 120]!r}"


# The runs


def finish(experiment: Experiment, name: str) -> float:
    """Run the command to its end and rename its folder; the seconds that it took."""
    since = time.monotonic()
    terminal = experiment.start(f"{name}-last")
    code = terminal.wait(600)
    assert code == 0, (code, terminal.text()[-3000:])
    check_ended(terminal)
    (experiment.folder / "run").rename(experiment.folder / name)
    return time.monotonic() - since


def check_ended(terminal: Terminal) -> None:
    left = terminal.left()
    assert not left, f"processes are left: {left}"
    text = terminal.text()
    assert KEY not in text
    if not terminal.closed:
        assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l"), "the cursor is hidden"


def interrupt(
    experiment: Experiment, number: int, moment: float, ways: list[str], chance: random.Random
) -> tuple[str, str]:
    """Start the command and interrupt it after some seconds; the way and the stage, both empty if it ended before."""
    terminal = experiment.start(f"start-{number}")
    if (code := terminal.wait(moment)) is not None:
        assert code == 0, (code, terminal.text()[-3000:])
        return "", ""
    way = chance.choice(ways)
    stage = (re.findall("── (\\w+)", terminal.text()) or ["start"])[-1]
    terminal.look()
    codes = WAYS[way](terminal, chance)
    since = time.monotonic()
    code = terminal.wait(PATIENCE if way != "kill -9 of a child" else 600)
    took = time.monotonic() - since
    print(
        f"{number:3}  {moment:5.1f} s  {stage:8} {way} {terminal.killed}: exit code {code} after {took:.1f} s",
        flush=True,
    )
    text = terminal.text()
    if not text.strip():
        codes |= {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}  # Python was starting
    if '"stage_seconds"' in text:
        codes |= {0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}  # the summary was printed, Python was ending
    assert code in codes, (code, text[-3000:])
    if code == 3 and way != "closed terminal":
        assert "cure: " in text, text[-3000:]
        assert "Traceback" not in text, text[-3000:]
    if way not in ("kill -9", "kill -9 of the group"):
        check_ended(terminal)
    else:
        assert not (left := terminal.left()), f"processes are left: {left}"
    return f"{way} {terminal.killed}".strip(), stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, action="append", help="only this interruption; repeatable")
    parser.add_argument("--quick", action="store_true", help="3 interruptions of a smaller run")
    parser.add_argument("--keep", type=Path, help="use this folder and keep it")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.kills = 12, 3
    with tempfile.TemporaryDirectory(prefix="spot-chaos-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(exist_ok=True)
        chaos(folder, options, random.Random(options.seed))


def chaos(folder: Path, options: argparse.Namespace, chance: random.Random) -> None:
    experiment = Experiment(folder, options.rows, 1 if options.quick else 2, chance)
    with experiment.provider as provider:
        experiment.prepare()
        seconds = finish(experiment, "calm")
        calm, asked = contents(folder / "calm"), len(provider.requests)
        print(f"undisturbed: {seconds:.1f} s, {asked} requests, {len(calm)} files", flush=True)
        ways: Counter[str] = Counter()
        stages: Counter[str] = Counter()
        starts, again, runs = 0, 0, 0
        while ways.total() < options.kills:
            provider.restart()
            runs, rough = runs + 1, f"rough-{runs + 1}"
            while ways.total() < options.kills:
                starts += 1
                way, stage = interrupt(experiment, starts, chance.uniform(0, seconds), options.way or [*WAYS], chance)
                if not way:
                    break
                ways[way] += 1
                stages[stage] += 1
            starts += 1
            finish(experiment, rough)
            again += len(provider.requests) - asked
            assert len(provider.requests) - asked <= ways.total() * CONCURRENCY
            changes = differences(calm, contents(folder / rough))
            assert not changes, "\n".join(changes)
            print(f"{rough}: the same {len(calm)} files", flush=True)
    print(f"{ways.total()} interruptions ({dict(ways)}) in {dict(stages)}")
    print(f"{runs} runs, {starts} starts, {again} of {runs * asked} requests were sent again; no process was left")


if __name__ == "__main__":
    main()
