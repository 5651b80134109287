"""problems -> samples: the policy answers, every answer is graded.

    spot sample builtin:arithmetic --model builtin:smollm2-135m

Answers are appended batch by batch as they come, each with its verdict, and a second start runs only what is missing.
An answer that was cut at the token limit is undecided: it is no evidence of a mistake. Left out on purpose: choosing
among answers, and any repair of them.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.console import progress, say
from spotcli.core.grading import Grade, grade_many
from spotcli.core.grading.graders import grader_of
from spotcli.errors import RecipeError
from spotcli.policies import Answer, Request, Sampling, answer_seed, load_policy
from spotcli.policies.models import resolve
from spotcli.problems import open_problems
from spotcli.recipe import Recipe
from spotcli.records import Problem, Sample


@dataclass(frozen=True)
class SampleSummary:
    """What ``spot sample`` did; the verdicts are those of the whole file."""

    path: str
    problems: int
    answers: int
    new: int
    right: int
    wrong: int
    undecided: int
    cut: int
    """Of the undecided: answers that reached the token limit."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def sample(recipe: Recipe, *, folder: Path = Path(), fresh: bool = False) -> SampleSummary:
    """Have the policy answer every problem ``trials`` times; paths are relative to ``folder``.

    Raises:
        RecipeError: no model is named.
        UserError: problems or model are not there; the output is being written, or was made with other settings.
    """
    started = time.monotonic()
    settings = recipe.sample
    if recipe.model is None:
        raise RecipeError(
            "no model is named", where="model", cure="spot sample --model MODEL, or `model:` in the recipe"
        )
    problems = open_problems(settings.problems, folder=folder, seed=recipe.seed, limit=settings.limit)
    location = resolve(recipe.model)
    for kind in {problem.grader for problem in problems}:
        grader_of(kind, recipe.grader)  # what is missing is said before anything is answered
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.top_k)
    source = folder / settings.problems
    output = jsonl.Output(
        folder / settings.output,
        command="spot sample",
        settings={
            "model": recipe.model,
            "problems": settings.problems,
            "seed": recipe.seed,
            "grader": recipe.grader,
            **sampling.as_dict(),
            "chat_template_kwargs": settings.chat_template_kwargs,
        },
        inputs={settings.problems: jsonl.digest(source)} if source.is_file() else None,
        fresh=fresh,
    )
    with output:
        if output.torn:
            say(f"{output.path}: a line cut off by the last stop was set aside")
        by_id = {problem.id: problem for problem in problems}
        requests = [
            Request((problem.id, trial), problem.messages, answer_seed(recipe.seed, problem.id, trial))
            for problem in problems
            for trial in range(settings.trials)
        ]
        verdicts: Counter[str] = Counter(_verdict(row) for row in output.rows())
        before = len(output.done)
        missing = sum(request.key not in output.done for request in requests)
        if before and missing:
            say(f"{output.path}: {before} answers are there already, {missing} to go")
        if missing:
            policy = load_policy(
                settings.engine,
                location,
                sampling,
                batch_size=settings.batch_size,
                dtype=settings.dtype,
                chat_template_kwargs=settings.chat_template_kwargs,
            )
            parameters = {"model": recipe.model, **sampling.as_dict()}
            with progress("answers") as display:
                task = display.add_task("sample", total=missing, note="")
                for batch in policy.plan(requests):
                    if all(request.key in output.done for request in batch):
                        continue
                    answers = [answer for answer in policy.answer(batch) if answer.request.key not in output.done]
                    asked = [by_id[answer.request.key[0]] for answer in answers]
                    rows = _graded(asked, answers, parameters, recipe.grader)
                    output.append(rows)
                    output.done.update(row.key for row in rows)
                    verdicts.update(_verdict(row.model_dump()) for row in rows)
                    display.update(task, advance=len(rows), note=_note(verdicts))
        cut = verdicts["cut"]
        summary = SampleSummary(
            path=str(output.path),
            problems=len(problems),
            answers=len(output.done),
            new=len(output.done) - before,
            right=verdicts["right"],
            wrong=verdicts["wrong"],
            undecided=verdicts["undecided"] + cut,
            cut=cut,
            seconds=time.monotonic() - started,
        )
        assert summary.answers == summary.right + summary.wrong + summary.undecided
        output.finish({k: v for k, v in summary.as_dict().items() if k not in ("path", "new", "seconds")})
    return summary


def _graded(problems: list[Problem], answers: list[Answer], parameters: dict[str, Any], default: str) -> list[Sample]:
    """The answers as rows; an answer that was cut, or that nothing is known of, is not held against a reference."""
    pairs = list(zip(problems, answers, strict=True))
    kinds = [problem.grader or default for problem in problems]
    # Mathematics can take long, so it is graded together, by several workers.
    together = [
        (answer.response, problem.answer or "")
        for (problem, answer), kind in zip(pairs, kinds, strict=True)
        if kind == "math" and _why_not(problem, answer) is None
    ]
    grades = iter(grade_many(together))
    rows = []
    for (problem, answer), kind in zip(pairs, kinds, strict=True):
        if why_not := _why_not(problem, answer):
            result = Grade("undecided", why_not)
        else:
            result = next(grades) if kind == "math" else grader_of(kind, default)(answer.response, problem.answer or "")
        rows.append(
            Sample.model_validate(
                {
                    **problem.model_dump(exclude_unset=True),
                    **({} if kind == "math" else {"grader": kind}),
                    "trial": answer.request.key[1],
                    "response": answer.response,
                    "finish_reason": answer.finish_reason,
                    "verdict": result.verdict,
                    "extracted": result.extracted,
                    "reason": result.reason or None,
                    "tokens": len(answer.token_ids),
                    "sampling": {**parameters, "seed": answer.request.seed},
                }
            )
        )
    return rows


def _why_not(problem: Problem, answer: Answer) -> str | None:
    """Why an answer cannot be graded."""
    if answer.finish_reason == "length":
        return "cut"
    return "no reference answer" if problem.answer is None else None


def _verdict(row: dict[str, Any]) -> str:
    return "cut" if row["finish_reason"] == "length" else str(row["verdict"])


def _note(verdicts: Counter[str]) -> str:
    undecided = verdicts["undecided"] + verdicts["cut"]
    return f"right {verdicts['right']} wrong {verdicts['wrong']} undecided {undecided}"
