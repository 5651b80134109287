"""The prompts of an export: one row per problem with a reference answer, each other row counted with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.errors import UserError
from spotcli.problems.sources import iter_problems
from spotcli.records import Problem, key_hash, kind_of, plain_prompt

REPEATED = "further rows of a problem"
NO_REFERENCE = "no reference answer"
CONFLICTING = "same prompt with another reference answer"
TOOLS = "tools or other fields in the messages"


@dataclass
class Prompts:
    """The problems that are exported."""

    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    """Rows of the file: ``problems`` and everything in ``left_out``."""


def read_prompts(path: Path, limit: int | None = None) -> Prompts:
    """The problems in a file of problems, samples or pairs.

    Args:
        path: the file.
        limit: only the first N problems.

    Raises:
        DataError: a row is invalid, or belongs to an evaluation.
        UserError: the file is not found, or no problem can be exported.
    """
    prompts = Prompts()
    seen: dict[int, str | None] = {}
    conflicting: set[int] = set()
    for problem in _problems(path):
        prompts.rows += 1
        prompt, reference = key_hash(plain_prompt(problem.prompt)), problem.reference
        if reference is None:
            prompts.left_out[NO_REFERENCE] += 1
        elif prompt in seen:
            prompts.left_out[REPEATED] += 1
            if seen[prompt] != reference.strip():
                conflicting.add(prompt)
        elif problem.tools or any(message.keys() - {"role", "content"} for message in problem.messages):
            prompts.left_out[TOOLS] += 1
        else:
            seen[prompt] = reference.strip()
            prompts.problems.append(problem)
    kept = [problem for problem in prompts.problems if key_hash(plain_prompt(problem.prompt)) not in conflicting]
    prompts.left_out[CONFLICTING] += len(prompts.problems) - len(kept)
    if limit is not None and len(kept) > limit:
        prompts.left_out["after the limit"] += len(kept) - limit
    prompts.problems = kept[:limit]
    prompts.left_out = +prompts.left_out
    if not prompts.problems:
        reasons = ", ".join(f"{count} {reason}" for reason, count in prompts.left_out.items()) or "the file is empty"
        raise UserError(f"no problem can be exported ({reasons})", where=str(path), cure="use another file")
    return prompts


def _problems(path: Path) -> Iterator[Problem]:
    first: dict[str, Any] | None = None
    if path.suffix.lower() not in (".parquet", ".csv", ".tsv"):
        first = next(iter(jsonl.rows(path)), None)
    if first is None or kind_of(first) == Problem.kind:
        yield from iter_problems(str(path), folder=Path(), seed=0, limit=None)
        return
    for where, _, row in jsonl.placed(path):
        jsonl.refuse_evaluated(row, where)
        yield jsonl.as_record(row, Problem, where=where)
