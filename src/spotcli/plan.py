"""A whole run before it starts: what it would give and take, and what is missing.

    spot plan recipes/qwen3-8b.yaml

check -> probe (the first 32 problems are answered) -> project each stage -> what is missing

The probe is the beginning of the run itself: its answers are in the folder of the run, and ``spot run`` continues with
them. Nothing is sent to an oracle, and no weights are trained.
"""

from __future__ import annotations

import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from spotcli import files, jsonl
from spotcli.console import counted, say
from spotcli.core.costs import DEVICES, GIB
from spotcli.errors import SpotError, Unfinished
from spotcli.locks import Lock
from spotcli.oracles.by_name import create
from spotcli.oracles.model import ModelOracle
from spotcli.outputs import meta_path
from spotcli.problems.sources import iter_problems
from spotcli.recipe import Recipe
from spotcli.records import Sample
from spotcli.run import find_inputs
from spotcli.runs.projection import Missing, Probe, Range, RunPlan, StagePlan
from spotcli.stages.evaluate import plan as plan_evaluation
from spotcli.stages.rectify import Action, rectify
from spotcli.stages.sample import sample
from spotcli.stages.train import train

T = TypeVar("T")

PROBE = 32
"""Problems that the probe asks."""
MOST_COUNTED = 1_000_000
"""Problems that are counted at most."""
WITHOUT_KEY = ("symbolic", "human", "policy", "policy-prompted")
"""Oracles that need no key; that the policy can be loaded is shown by the probe."""
USUAL_DEVICE = "h100"
CPU_UTILISATION = 0.25
"""The share of a matrix product's rate that training of a small model reaches on a processor."""
PAIRS_OF_WRONG = (0.5, 0.8, 1.0)
"""The share of wrong answers that becomes pairs, assumed: with a weak, a usual and a perfect oracle."""


@dataclass
class _Planner:
    recipe: Recipe
    folder: Path
    device: str | None
    missing: list[Missing] = field(default_factory=list)

    def tried(self, stage: str, work: Callable[[], T]) -> T | None:
        """The result of some work; None if it cannot be done, which is noted as missing.

        Raises:
            Unfinished: it was interrupted.
        """
        try:
            return work()
        except Unfinished:
            raise
        except SpotError as error:
            where = f"{error.where}: " if error.where else ""
            self.missing.append(Missing(stage, f"{where}{error.message}", error.cure or ""))
            return None


def make_plan(
    recipe: Recipe,
    *,
    folder: Path,
    probe: bool = True,
    device: str | None = None,
    max_hours: float | None = None,
    max_cost: float | None = None,
) -> RunPlan:
    """Plan a run.

    Args:
        recipe: the whole recipe.
        folder: of the run.
        probe: answer the first problems; otherwise only what is in the folder is used.
        device: the GPU that training is estimated for; None: a usual one.
        max_hours: limit that the plan is compared with.
        max_cost: limit in US dollars that the plan is compared with.

    Raises:
        Unfinished: the probe was interrupted.
        UserError: another process writes the folder.
    """
    files.make_parent(folder / "samples.jsonl")
    find_inputs(recipe, folder)
    planner = _Planner(recipe, folder, device)
    with Lock(folder, "folder"):
        measured = _probe(planner, ask=probe)
        stages = [_sampling(planner, measured), _repair(planner, measured)]
        stages += [_training(planner, measured), _evaluation(planner, measured)]
    free = float(shutil.disk_usage(folder).free)
    plan = RunPlan(str(folder), measured, stages, planner.missing, free, max_hours, max_cost)
    if plan.disk > free:
        planner.missing.append(Missing("all stages", "the disk is too small", "free space, or use another folder (-o)"))
    return plan


def _probe(planner: _Planner, *, ask: bool) -> Probe | None:
    """Answer the first problems, or read the answers that are there."""
    recipe, folder = planner.recipe, planner.folder
    path = folder / recipe.sample.output
    there = meta_path(path).is_file()
    total = planner.tried("sample", lambda: _count_problems(recipe, folder))
    seconds = 0.0
    before = _lines(path)
    if ask and total and before < min(PROBE, total):
        limit = min(PROBE, total)
        say(f"probe: the first {counted(limit, 'problem')}; spot run continues with these answers")
        section = recipe.sample.model_copy(update={"limit": limit, "trials": 1})
        first = recipe.model_copy(update={"sample": section})
        started = time.monotonic()
        if planner.tried("sample", lambda: sample(first, folder=folder)) is None:
            return None
        seconds = time.monotonic() - started
        there = True
    if not there or not total:
        return None
    rows = planner.tried("sample", lambda: list(islice(jsonl.read(path, Sample), MOST_COUNTED)))
    if not rows:
        return None
    verdicts = Counter(row.verdict for row in rows)
    tokens = sum(int((row.model_extra or {}).get("tokens") or 0) for row in rows)
    new = len(rows) - before
    return Probe(
        problems=len({row.id for row in rows}),
        total=total,
        trials=recipe.sample.trials,
        answers=len(rows),
        wrong=verdicts["wrong"],
        right=verdicts["right"],
        undecided=verdicts["undecided"],
        tokens=tokens,
        seconds=seconds * len(rows) / new if new else 0.0,
    )


def _count_problems(recipe: Recipe, folder: Path) -> int:
    """Problems of the whole run."""
    problems = iter_problems(
        recipe.sample.problems, folder=folder, seed=recipe.seed, limit=recipe.sample.limit, quiet=True
    )
    return sum(1 for _ in islice(problems, MOST_COUNTED))


def _sampling(planner: _Planner, probe: Probe | None) -> StagePlan:
    recipe = planner.recipe
    if probe is None:
        return StagePlan("sample", "")
    answers = counted(probe.expected_answers, "answer")
    each = _bytes(planner.folder / recipe.sample.output) / max(probe.answers, 1)
    return StagePlan(
        "sample",
        f"{answers} to {counted(probe.total, 'problem')}",
        hours=_answering_hours(probe, probe.expected_answers),
        disk=each * probe.expected_answers,
        note="" if probe.tokens_per_second is None else "at the rate of the probe; many problems at once are faster",
    )


def _answering_hours(probe: Probe, answers: float) -> float | None:
    rate = probe.tokens_per_second
    return None if rate is None else answers * probe.tokens / probe.answers / rate / 3600


def _repair(planner: _Planner, probe: Probe | None) -> StagePlan:
    """Dollars of the oracle, from the requests about the wrong answers that are there."""
    recipe, folder = planner.recipe, planner.folder
    names = [name for name in (recipe.rectify.oracle, *recipe.rectify.then) if name]
    if recipe.rectify.mode != "self":
        for name in set(names) - set(WITHOUT_KEY):
            planner.tried("rectify", partial(_check_oracle, name, recipe))
    if probe is None or not probe.wrong:
        return StagePlan("rectify", "")
    summary = planner.tried("rectify", lambda: _quiet(lambda: rectify(recipe, folder=folder, action=Action("dry run"))))
    wrong = probe.wrong_answers
    what = f"about {wrong.likely or 0:,.0f} wrong answers to {' then '.join(names)}"
    if summary is None or summary.estimate is None or not summary.estimate.requests:
        return StagePlan("rectify", what)
    estimate = summary.estimate
    each = Range(estimate.min, estimate.likely, estimate.max).times(1 / estimate.requests)
    # The ends are those of the price and of the number of wrong answers together.
    cost = Range(
        None if each.low is None else each.low * (wrong.low or 0.0),
        None if each.likely is None else each.likely * (wrong.likely or 0.0),
        None if each.high is None else each.high * (wrong.high or 0.0),
    )
    answer = _bytes(folder / recipe.sample.output) / probe.answers
    # The policy as its own oracle generates at the rate of the probe, and at most this much.
    generated = estimate.policy_tokens / estimate.requests * (wrong.likely or 0.0)
    rests = "details of the price: spot rectify --dry-run" if cost.likely else ""
    return StagePlan(
        "rectify",
        what,
        hours=generated / probe.tokens_per_second / 3600 if generated and probe.tokens_per_second else None,
        dollars=cost,
        disk=3 * answer * (wrong.likely or 0.0),
        note="; ".join(note for note in (*estimate.notes(), rests) if note),
    )


def _check_oracle(name: str, recipe: Recipe) -> None:
    """Check that an oracle is known and that its key is there.

    Raises:
        UserError: it is not.
    """
    oracle = create(name, recipe.rectify)
    if isinstance(oracle, ModelOracle):
        oracle.check_environment()


def _training(planner: _Planner, probe: Probe | None) -> StagePlan:
    """Time, memory and disk of training, from pairs like those that the wrong answers could give."""
    recipe, folder = planner.recipe, planner.folder
    data = folder / recipe.train.data
    pairs = float(_lines(data))
    what, note = f"{counted(int(pairs), 'pair')} of {data.name}", ""
    planned = recipe
    scratch = folder / ".plan.jsonl"
    scale = 1.0
    if not pairs:
        if probe is None or not probe.wrong:
            return StagePlan("train", "")
        rows = list(_likely_pairs(jsonl.read(folder / recipe.sample.output, Sample)))
        low, likely, high = (share * (probe.wrong_answers.likely or 0.0) for share in PAIRS_OF_WRONG)
        what = f"about {likely:,.0f} pairs ({low:,.0f} to {high:,.0f}, as good as the oracle is)"
        note = "assumes an edit in the middle of each answer"
        scale = likely / max(len(rows), 1)
        jsonl.write_rows(scratch, rows)
        planned = recipe.model_copy(update={"train": recipe.train.model_copy(update={"data": scratch.name})})
    device = planner.device or _visible_device() or USUAL_DEVICE
    try:
        dry = planner.tried("train", lambda: _quiet(lambda: train(planned, folder=folder, dry_run=True, device=device)))
    finally:
        scratch.unlink(missing_ok=True)
    if dry is None or dry.estimate is None:
        return StagePlan("train", what)
    estimate = dry.estimate
    disk = GIB * sum(estimate.disk.values())
    if planner.device is None and (rate := _cpu_rate()):
        seconds = scale * sum(estimate.operations.values()) / (rate * CPU_UTILISATION)
        where = "on this machine's processor, from the speed of a matrix product; --device NAME for a GPU"
        return StagePlan("train", what, hours=seconds / 3600, disk=disk, note=f"{where}; {note}" if note else where)
    if estimate.memory_total > estimate.memory_available:
        problem = (
            f"about {estimate.memory_total:.0f} GiB per device are needed, and {estimate.device} has "
            f"{estimate.memory_available:g}"
        )
        planner.missing.append(Missing("train", problem, "train.lora, sharding over more GPUs, or checkpointing"))
    memory = f"{estimate.memory_total:.0f} of {estimate.memory_available:g} GiB on {estimate.device}"
    where = f"on {counted(estimate.devices, estimate.device)} at {estimate.utilisation:.0%} of peak"
    note = f"{where}; {note}" if note else where
    return StagePlan("train", what, hours=scale * estimate.minutes / 60, memory=memory, disk=disk, note=note)


def _visible_device() -> str | None:
    """The name in ``DEVICES`` of this machine's GPU; None without a GPU, and for one that is not listed."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0).lower().replace(" ", "")
    return next((known for known in DEVICES if known in name), None)


def _cpu_rate() -> float | None:
    """Operations per second of a bfloat16 matrix product on the processor; None if this machine has a GPU."""
    import torch

    if torch.cuda.is_available():
        return None
    left_MK = torch.ones(1024, 1024, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        left_MK @ left_MK
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best


def _likely_pairs(samples: Iterable[Sample]) -> Iterable[dict[str, object]]:
    """Rows as corrections of the wrong answers could be: changed in the middle."""
    for row in samples:
        if row.verdict == "wrong" and row.response.strip():
            middle = len(row.response) // 2
            chosen = f"{row.response[:middle]} no {row.response[middle:]}"
            fields = row.model_dump(mode="json", exclude_none=True)
            yield fields | {"rejected": row.response, "chosen": chosen}


def _evaluation(planner: _Planner, probe: Probe | None) -> StagePlan:
    recipe, folder = planner.recipe, planner.folder
    plan = planner.tried(
        "eval", lambda: plan_evaluation(recipe, model=recipe.train.output, against=recipe.model, folder=folder)
    )
    if plan is None:
        return StagePlan("eval", "")
    tasks = counted(len(plan.tasks), "task")
    time_needed = _answering_hours(probe, plan.requests) if probe else None
    return StagePlan(
        "eval",
        f"{counted(plan.requests, 'answer')} of {counted(len(plan.models), 'model')} to {tasks}",
        hours=time_needed,
        note=" ".join(plan.notes()),
    )


def _quiet(work: Callable[[], T]) -> T:
    """Do some work without its messages: the plan says what matters."""
    with redirect_stderr(io.StringIO()):
        return work()


def _lines(path: Path) -> int:
    return sum(1 for _ in jsonl.rows(path)) if path.is_file() else 0


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
