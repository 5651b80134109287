"""IFEval: prompts with instructions that a program can check, scored in four ways.

Strict checks the response as it is; loose also accepts it without its first line, its last line, or its emphasis. A
prompt counts if all of its instructions are followed; by instruction, each one counts for itself. The main score is
strict by prompt.
"""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from spotcli.evaluation.tasks.published import PublishedSet, column_error, load_converted
from spotcli.evaluation.tasks.task import Task, TaskContext
from spotcli.grading.answers import TRUNCATED
from spotcli.grading.kinds import NotChecked, check_instructions
from spotcli.records import Problem, Score

SET = PublishedSet("ifeval", ("google/IFEval",), 541, files=("ifeval_input_data", "input_data"))

COLUMNS = ("prompt", "instruction_id_list", "kwargs")
"""Published columns."""
BY_INSTRUCTION = ("instruction_strict", "instruction_loose")
"""Metrics whose unit is an instruction; the other two are by prompt."""


def load(context: TaskContext) -> list[Problem]:
    """The prompts; the reference of each is the JSON text that the checkers take.

    Raises:
        UserError: the set is missing, or has another number of prompts.
        DataError: a column is missing or invalid.
    """
    return load_converted(SET, context, as_problem)


def as_problem(row: dict[str, Any], /, *, where: str, source: str) -> Problem:
    """One published row as a problem.

    Raises:
        DataError: a column is missing or invalid.
    """
    names, arguments = _decoded(row.get("instruction_id_list")), _decoded(row.get("kwargs"))
    for column, value, item in (("instruction_id_list", names, str), ("kwargs", arguments, dict | None)):
        if not isinstance(value, list) or not value or not all(isinstance(entry, item) for entry in value):
            raise column_error(SET, COLUMNS, f"the column '{column}' is missing or not a list", where)
    if len(names) != len(arguments):
        raise column_error(SET, COLUMNS, f"expected kwargs for {len(names)} instructions, got {len(arguments)}", where)
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise column_error(SET, COLUMNS, "the column 'prompt' is missing or empty", where)
    # In Parquet, every instruction has the arguments of all instructions, and null for those of others. Data frames
    # turn such columns into floats, and null into NaN, the only value that differs from itself.
    given = [
        {key: _whole(value) for key, value in (entry or {}).items() if value is not None and value == value}
        for entry in arguments
    ]
    reference = {"prompt": prompt, "instruction_id_list": names, "kwargs": given}
    if row.get("key") is not None:
        reference = {"key": row["key"], **reference}
    return Problem.model_validate(
        {
            **({"id": str(row["key"])} if row.get("key") is not None else {}),
            "prompt": prompt,
            "answer": json.dumps(reference, ensure_ascii=False),
            "source": source,
            "grader": "instructions",
        }
    )


def _whole(value: Any) -> Any:
    """A whole number as an integer, as an index has to be; any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _decoded(value: Any) -> Any:
    """A cell of a CSV file, which contains JSON; any other value unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def metrics(score: Score) -> dict[str, float]:
    """The four numbers of one answer; an answer that was truncated or cannot be checked follows no instruction."""
    strict: list[bool] = [False]
    loose: list[bool] = [False]
    if score.reason != TRUNCATED:
        try:
            results = check_instructions(score.response, score.answer or "")
        except NotChecked:
            pass
        else:
            strict, loose = results.strict, results.loose
    return {
        "prompt_strict": float(all(strict)),
        "prompt_loose": float(all(loose)),
        "instruction_strict": fmean(strict),
        "instruction_loose": fmean(loose),
    }


def weights(problem: Problem) -> dict[str, float]:
    """The number of instructions of a prompt, for the metrics by instruction."""
    return dict.fromkeys(BY_INSTRUCTION, float(len(json.loads(problem.answer or "")["instruction_id_list"])))


TASK = Task(
    "ifeval",
    load,
    trials=5,
    grader="instructions",
    group="IFEval",
    published_rows=SET.rows,
    metrics=metrics,
    weights=weights,
)
