"""How far a run is, from the files in its folder: for a run that another terminal, a job or a machine executes.

    spot status runs/demo

``spot run`` writes its progress to progress.json every few seconds. Everything else is read from what the stages write
anyway, so an interrupted run shows what it finished.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from spotcli import jsonl
from spotcli.console import WorkProgress, counted, dollars, one_line, out
from spotcli.errors import SpotError, UserError
from spotcli.locks import Owner, writer
from spotcli.outputs import meta_path, read_meta

CLOCK = "seconds.json"
"""The file of a run's folder with the time per stage; it exists from the first start on."""
PROGRESS = "progress.json"
SUMMARY = "run.json"
"""The summaries of all stages; written when the run is done."""
STAGES = ("sample", "rectify", "train", "eval")

EVERY = 2.0
"""Seconds between two writes of progress.json, at least."""

State = Literal["done", "running", "interrupted", "waiting"]


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is."""

    name: str
    state: State
    facts: str = ""
    """Its main counts."""
    seconds: float = 0.0
    """Time over all starts, without the one that runs now."""


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    folder: str
    state: Literal["done", "running", "interrupted", "stopped"]
    """``interrupted``: a stage is incomplete and no process continues it. ``stopped``: all that was started is
    complete, and stages are left."""
    stages: list[StageStatus]
    process: str = ""
    """The process that runs it."""
    work: dict[str, Any] = field(default_factory=dict)
    """What the running stage last reported, as in progress.json; empty if nothing runs."""
    verdict: list[str] = field(default_factory=list)
    page: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ProgressFile:
    """progress.json in the folder of a run, written at most every ``EVERY`` seconds."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS
        self._scratch = folder / f".{PROGRESS}"
        self.stage = ""
        self._written = float("-inf")

    def __call__(self, work: WorkProgress) -> None:
        now = time.monotonic()
        if now - self._written < EVERY and work.done < work.total:
            return
        self._written = now
        facts = asdict(work) | {"remaining": work.remaining, "stage": self.stage, "time": time.time()}
        # Without fsync, and always by the same name: it is written often, and a kill must not leave many files.
        self._scratch.write_text(json.dumps(facts), encoding="utf-8")
        self._scratch.replace(self.path)

    def remove(self) -> None:
        """Remove the file: nothing is in progress any more."""
        self._scratch.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def read_status(folder: Path) -> RunStatus:
    """How far a run is.

    Raises:
        UserError: the folder does not exist, or is not that of a run.
    """
    if not (folder / CLOCK).is_file():
        problem = "not the folder of a run" if folder.is_dir() else "folder not found"
        raise UserError(problem, where=str(folder), cure="name the folder that `spot run` writes, such as runs/demo")
    owner = writer(folder)
    seconds, summary = _json(folder / CLOCK), _json(folder / SUMMARY)
    work = _json(folder / PROGRESS) if owner else {}
    running = _running_stage(folder, work) if owner else None
    stages = [
        StageStatus(
            name,
            "running" if name == running else _state(folder, name, summary),
            _FACTS[name](folder),
            float(seconds.get(name, 0.0)),
        )
        for name in STAGES
    ]
    states = {stage.state for stage in stages}
    state: Literal["done", "running", "interrupted", "stopped"] = "running" if owner else "stopped"
    if not owner:
        state = "done" if states == {"done"} else "interrupted" if "interrupted" in states else "stopped"
    verdict = _mapping(summary.get("eval")).get("verdict")
    page = folder / "report.html"
    return RunStatus(
        folder=str(folder),
        state=state,
        stages=stages,
        process=_process(owner),
        work=work,
        verdict=[str(sentence) for sentence in verdict] if isinstance(verdict, list) and not owner else [],
        page=str(page) if page.is_file() and not owner else "",
    )


def show_status(status: RunStatus) -> None:
    """Print how far a run is."""
    console = out()
    marks = {"done": "✓", "running": "▸", "interrupted": "!", "waiting": "·"}
    process = f" ({status.process})" if status.process else ""
    console.print(one_line(f"{status.folder}: {status.state}{process}"), soft_wrap=True)
    for stage in status.stages:
        took = f", {timedelta(seconds=round(stage.seconds))}" if stage.seconds >= 1 else ""
        facts = f"{stage.facts or stage.state}{took}"
        console.print(f"{marks[stage.state]} {stage.name:<8} {one_line(facts)}", soft_wrap=True)
        if stage.state == "running" and status.work:
            console.print(f"  {_work_line(status.work)}", soft_wrap=True)
    for sentence in status.verdict:
        console.print(one_line(sentence), soft_wrap=True)
    if status.state in ("interrupted", "stopped"):
        recipe = Path(status.folder) / "recipe.yaml"
        console.print(one_line(f"Continue: spot run {recipe} -o {status.folder}"), soft_wrap=True)
    if status.page:
        console.print(one_line(status.page), soft_wrap=True)


def _work_line(work: Mapping[str, Any]) -> str:
    """One line about what runs: count, rate, remaining time, and how old that is."""
    done, total, rate, remaining = (_number(work.get(key)) for key in ("done", "total", "per_second", "remaining"))
    age = time.time() - _number(work.get("time"))
    parts = [f"{work.get('name')}: {done:,.0f} of {total:,.0f} {work.get('unit')}"]
    parts += [f"{rate:.1f}/s", f"{timedelta(seconds=round(min(remaining, 1e9)))} remaining"] if rate else []
    parts += [str(work["note"])] if work.get("note") else []
    parts += [f"reported {timedelta(seconds=round(age))} ago"] if age > 60 else []
    return one_line(", ".join(parts))


def _running_stage(folder: Path, work: Mapping[str, Any]) -> str:
    """The stage that runs: the one that reported last, else the first that is not complete."""
    if work.get("stage") in STAGES:
        return str(work["stage"])
    return next((name for name in STAGES if _state(folder, name, {}) != "done"), STAGES[-1])


def _state(folder: Path, name: str, summary: Mapping[str, Any]) -> State:
    """Whether a stage is complete, by the description of its output."""
    meta = _meta(folder, name)
    if name == "eval":
        return "done" if summary.get("eval") else "interrupted" if (folder / "scores").is_dir() else "waiting"
    return "done" if meta.get("complete") else "interrupted" if meta else "waiting"


def is_complete(folder: Path, stage: str) -> bool:
    """Whether a stage before the evaluation has finished its output in the folder of a run."""
    return _state(folder, stage, {}) == "done"


def _meta(folder: Path, name: str) -> dict[str, Any]:
    """The description of a stage's output; empty if there is none or it is damaged."""
    if name == "train":
        return _json(folder / "checkpoint" / "spot-train.json")
    path = folder / {"sample": "samples.jsonl", "rectify": "data.jsonl"}.get(name, "")
    try:
        return read_meta(path) if meta_path(path).is_file() else {}
    except SpotError:
        return {}


def _sample_facts(folder: Path) -> str:
    counts = _mapping(_meta(folder, "sample").get("counts"))
    if not counts:
        lines = _lines(folder / "samples.jsonl")
        return counted(lines, "answer") if lines else ""
    verdicts = ", ".join(f"{counts[name]:,} {name}" for name in ("right", "wrong", "undecided") if name in counts)
    return f"{counted(int(_number(counts.get('answers'))), 'answer')}: {verdicts}"


def _rectify_facts(folder: Path) -> str:
    counts = _mapping(_meta(folder, "rectify").get("counts"))
    pairs, replies = _lines(folder / "data.jsonl"), _lines(folder / "data.replies.jsonl")
    if not pairs and not replies:
        return ""
    cost = counts.get("cost")
    bill = f", {dollars(cost)}" if isinstance(cost, float) and cost else ""
    return f"{counted(pairs, 'pair')} from {counted(replies, 'reply', 'replies')}{bill}"


def _train_facts(folder: Path) -> str:
    last: dict[str, Any] = {}
    try:
        for last in jsonl.rows(folder / "checkpoint" / "metrics.jsonl"):  # noqa: B007  # the last row is what counts
            pass
    except SpotError:
        return ""
    if "step" not in last:
        return ""
    loss = f", loss {last['loss']:.4f}" if isinstance(last.get("loss"), float) else ""
    return f"step {last['step']} of {last.get('steps', '?')}{loss}"


def _eval_facts(folder: Path) -> str:
    answers = {path: _lines(path) for path in sorted((folder / "scores").glob("*.answers.jsonl"))}
    models = counted(len(answers), "model")
    return f"{counted(sum(answers.values()), 'answer')} of {models}" if answers else ""


_FACTS: dict[str, Callable[[Path], str]] = {
    "sample": _sample_facts,
    "rectify": _rectify_facts,
    "train": _train_facts,
    "eval": _eval_facts,
}


def _process(owner: Owner | None) -> str:
    if owner is None or not owner.pid:
        return ""
    return f"process {owner.pid}" + ("" if owner.is_local else f" on {owner.host}")


def _lines(path: Path) -> int:
    """Whole lines of a file; 0 if there is none."""
    try:
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing or damaged."""
    try:
        return jsonl.read_json(path)
    except SpotError:
        return {}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
