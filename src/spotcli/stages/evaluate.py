"""checkpoint -> scores: what was gained, and what it cost.

    spot eval checkpoint --task arithmetic --against builtin:smollm2-135m

Every answer to every held-out problem is one row of ``scores/MODEL.jsonl``, graded, so numbers can be recomputed and
trials added later. Against a base model, the two are compared problem by problem with a paired test, and the drift is
measured: the mean per-token KL from the base on neutral prompts. Left out on purpose: any choice among checkpoints,
which would make the test split part of the training.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.console import progress
from spotcli.core.stats import Comparison, Estimate, avg_at_k, compare
from spotcli.errors import RecipeError, UserError
from spotcli.evaluation.tasks import Task, find
from spotcli.grading import Grade
from spotcli.policies import Answer, Failure, Request, Sampling, answer_seed
from spotcli.policies.models import resolve
from spotcli.policies.transformers import TransformersPolicy
from spotcli.recipe import Recipe
from spotcli.records import Problem, Score


@dataclass(frozen=True)
class TaskScore:
    """One model on one task."""

    estimate: Estimate
    """avg@k with its interval; undecided and cut answers count as not right."""
    right: int
    wrong: int
    undecided: int
    truncated: int
    """Of the undecided: answers that reached the token limit."""


@dataclass(frozen=True)
class EvalSummary:
    """What ``spot eval`` found."""

    model: str
    against: str | None
    scores: dict[str, TaskScore]
    base: dict[str, TaskScore]
    """Empty without ``--against``, as are the next."""
    comparisons: dict[str, Comparison]
    drift: float | None
    """Mean KL(base || model) in nats a token on neutral prompts."""
    drift_tokens: int
    seconds: float
    base_seconds: float
    """Of ``seconds``: spent on the base model's answers."""
    files: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    recipe: Recipe, *, model: str, against: str | None, folder: Path = Path(), fresh: bool = False
) -> EvalSummary:
    """Score a model on the recipe's tasks, and against a base model if one is named; paths are relative to ``folder``.

    Raises:
        RecipeError: no task is named.
        UserError: a task or a model is not there; the scores were made with other settings.
    """
    started = time.monotonic()
    if not recipe.eval.tasks:
        raise RecipeError("no task is named", where="eval.tasks", cure="--task arithmetic")
    tasks = {name: find(name) for name in recipe.eval.tasks}
    base_rows: list[Score] = []
    base_path = None
    if against:
        base_path, base_rows = _answers(recipe, tasks, against, folder, fresh)
    base_seconds = time.monotonic() - started
    path, rows = _answers(recipe, tasks, model, folder, fresh)
    drift, drift_tokens = None, 0
    if against and recipe.eval.drift:
        drift, drift_tokens = _drift(recipe, model, against, folder)
    summary = EvalSummary(
        model=model,
        against=against,
        scores={name: _score(rows, name) for name in tasks},
        base={name: _score(base_rows, name) for name in tasks} if against else {},
        comparisons={name: compare(_outcomes(base_rows, name), _outcomes(rows, name)) for name in tasks if base_rows},
        drift=drift,
        drift_tokens=drift_tokens,
        seconds=time.monotonic() - started,
        base_seconds=base_seconds,
        files=[str(file) for file in (base_path, path) if file],
    )
    jsonl.write_json(path.with_suffix(".summary.json"), summary.as_dict())
    return summary


def _answers(recipe: Recipe, tasks: dict[str, Task], model: str, folder: Path, fresh: bool) -> tuple[Path, list[Score]]:
    """Answer and grade what is not there yet; the file and all its rows of these tasks."""
    settings = recipe.eval
    location = model_path(model, folder)
    path = folder / settings.output / f"{slug(model)}.jsonl"
    output = outputs.Output(
        path,
        command="spot eval",
        settings={
            "model": model,
            "fingerprint": fingerprint(location),
            "seed": recipe.seed,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "max_new_tokens": settings.max_new_tokens,
            "chat_template_kwargs": settings.chat_template_kwargs,
        },
        key=lambda row: (row["task"], row["id"], row["trial"]),
        fresh=fresh,
    )
    wanted: set[tuple[Any, ...]] = set()
    with output, progress("answers") as display:
        for name, task in tasks.items():
            problems = {problem.id: problem for problem in task.problems(recipe.seed, settings.limit)}
            requests = [
                Request((name, id, trial), problem.messages, answer_seed(recipe.seed, f"{name}:{id}", trial), trial)
                for trial in range(settings.trials or task.TRIALS)
                for id, problem in problems.items()
            ]
            wanted.update(request.key for request in requests)
            missing = sum(request.key not in output.done for request in requests)
            if not missing:
                continue
            sampling = Sampling(
                min(settings.max_new_tokens, task.MAX_NEW_TOKENS), settings.temperature, settings.top_p, settings.top_k
            )
            policy = TransformersPolicy(
                location,
                sampling,
                batch_size=settings.batch_size,
                dtype=settings.dtype,
                chat_template_kwargs=settings.chat_template_kwargs,
            )
            bar = display.add_task(f"{name}, {Path(model).name}", total=missing, note="")
            counts: Counter[str] = Counter()
            for group in policy.answers(requests, missing, lambda request: request.key in output.done):
                fresh_rows = [
                    _graded(name, task, problems[answer.request.key[1]], answer) for answer in map(_answered, group)
                ]
                output.append(fresh_rows)
                output.done.update(row.key for row in fresh_rows)
                counts.update(row.verdict for row in fresh_rows)
                display.update(bar, advance=len(fresh_rows), note=" ".join(f"{k} {v}" for k, v in counts.items()))
        rows = [row for row in jsonl.read(path, Score) if row.key in wanted]
        output.finish(Counter(row.verdict for row in rows))
    return path, rows


def _graded(name: str, task: Task, problem: Problem, answer: Answer) -> Score:
    result = Grade("undecided", "cut") if answer.finish_reason == "length" else task.grade(answer.response, problem)
    return Score.model_validate(
        {
            **problem.model_dump(exclude_unset=True),
            "task": name,
            "trial": answer.request.key[2],
            "response": answer.response,
            "finish_reason": answer.finish_reason,
            "verdict": result.verdict,
            "extracted": result.extracted,
            "reason": result.reason or None,
            "tokens": answer.tokens,
        }
    )


def _answered(item: Answer | Failure) -> Answer:
    """A task's problems are the same for every model, so one that cannot be asked is no score but an error."""
    if isinstance(item, Failure):
        raise UserError(
            f"the model cannot be asked: {item.reason}", where=str(item.request.key), cure="leave this task out"
        )
    return item


def _outcomes(rows: list[Score], task: str) -> dict[str, list[float]]:
    outcomes: dict[str, list[float]] = defaultdict(list)
    for row in sorted((row for row in rows if row.task == task), key=lambda row: row.key):
        outcomes[row.id].append(float(row.verdict == "right"))
    return outcomes


def _score(rows: list[Score], task: str) -> TaskScore:
    mine = [row for row in rows if row.task == task]
    verdicts = Counter(row.verdict for row in mine)
    return TaskScore(
        estimate=avg_at_k(_outcomes(rows, task)),
        right=verdicts["right"],
        wrong=verdicts["wrong"],
        undecided=verdicts["undecided"],
        truncated=sum(row.finish_reason == "length" for row in mine),
    )


def _drift(recipe: Recipe, model: str, against: str, folder: Path) -> tuple[float, int]:
    """Mean KL(base || model) a token, and over how many tokens of the base model's own answers."""
    from spotcli.core.drift import token_kl
    from spotcli.evaluation.tasks import neutral

    # Everything at temperature 1, where the samples come from the distribution that the KL is about.
    sampling = Sampling(neutral.MAX_NEW_TOKENS, temperature=1.0, top_p=1.0)
    base, tuned = (
        TransformersPolicy(model_path(name, folder), sampling, batch_size=recipe.eval.batch_size, dtype="float32")
        for name in (against, model)
    )
    requests = [
        Request((problem.id,), problem.messages, answer_seed(recipe.seed, problem.id, 0))
        for problem in neutral.problems()
    ]
    total, tokens = 0.0, 0
    with progress("answers") as display:
        bar = display.add_task("drift", total=len(requests), note="")
        for group in base.answers(requests, len(requests), lambda request: False):
            for answer in map(_answered, group):
                total += float(token_kl(base.logits(answer), tuned.logits(answer)).sum())
                tokens += answer.tokens
                display.update(bar, advance=1, note=f"{total / tokens:.4f} nats a token")
    return total / tokens, tokens


def model_path(model: str, folder: Path) -> str:
    """A model's folder relative to ``folder`` where there is one, else its name."""
    return str(folder / model) if (folder / model).is_dir() else resolve(model)


def slug(model: str) -> str:
    """A model's name as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.") or "model"


def fingerprint(location: str) -> str | None:
    """Digest of a local model's configuration and weights; None for one on the hub, which its name identifies."""
    path = Path(location)
    if not path.is_dir():
        return None
    total = hashlib.sha256()
    for file in sorted([*path.glob("*.json"), *path.glob("*.safetensors")]):
        if file.name.startswith(("config", "adapter_config", "generation_config", "model", "adapter_model")):
            total.update(f"{file.name}:{jsonl.digest(file)}\n".encode())
    return total.hexdigest()[:16]
