"""GPQA-Diamond: four choices in an order that depends on the seed and the question; the answer is a letter.

The set is gated, and its authors ask that questions are not spread: it is read from the hub or from a file, and no
question is part of this package.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from spotcli.evaluation.tasks.published import PublishedSet, column_error, load_converted
from spotcli.evaluation.tasks.task import Task, TaskContext
from spotcli.records import Problem

SET = PublishedSet("gpqa", ("Idavidrein/gpqa:gpqa_diamond:train",), 198, example="gpqa_diamond.csv")

QUESTION = "Question"
CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
"""Published columns; the first one is right."""
LETTERS = "ABCD"

INSTRUCTION = (
    "Think step by step and choose one answer. Write the last line of your response in exactly this form, with the "
    "letter of your choice in place of ANSWER:\nTherefore, the final answer is: $\\boxed{ANSWER}$."
)


def load(context: TaskContext) -> list[Problem]:
    """The questions with their choices in the order of the seed.

    Raises:
        UserError: the set is missing, gated, or has another number of questions.
        DataError: a column is missing or empty.
    """
    return load_converted(SET, context, partial(as_problem, seed=context.seed))


def as_problem(row: dict[str, Any], /, *, seed: int, where: str, source: str) -> Problem:
    """One published row as a problem; ``permutation`` and ``choices`` record the order of the choices.

    Raises:
        DataError: a column is missing or empty.
    """
    for column in (QUESTION, *CHOICES):
        if row.get(column) is None or not str(row[column]).strip():
            raise column_error(SET, (QUESTION, *CHOICES), f"the column '{column}' is missing or empty", where)
    question = str(row[QUESTION]).strip()
    # The order is independent of the order of the rows.
    permutation = random.Random(f"gpqa:{seed}:{row.get('Record ID') or question}").sample(range(4), 4)
    choices = [str(row[CHOICES[index]]).strip() for index in permutation]
    shown = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    record = row.get("Record ID")
    return Problem.model_validate(
        {
            **({"id": str(record)} if record else {}),
            "prompt": f"{question}\n\n{shown}",
            "answer": LETTERS[permutation.index(0)],
            "source": source,
            "grader": "choice",
            "choices": choices,
            "permutation": permutation,
        }
    )


TASK = Task(
    "gpqa",
    load,
    trials=5,
    grader="choice",
    group="OOD",
    published_rows=SET.rows,
    instruction=INSTRUCTION,
    constant_response="The answer is (A).",
)
