"""Answers of several tasks as graded rows, and rows that are graded again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from spotcli.answering.graded import RowSettings, graded_answers, grader_field
from spotcli.answering.journal import KeptAnswer
from spotcli.evaluation.tasks import Task
from spotcli.grading.answers import Completion, grade_answers, graded_fields
from spotcli.records import EVALUATION, Problem, Score


class ScoreGrading:
    """Grades answers to several tasks, each as its task asks for.

    Args:
        tasks: by name.
        settings: what the rows have in common.
    """

    def __init__(self, tasks: Mapping[str, Task], settings: RowSettings) -> None:
        self._tasks = tasks
        self._settings = settings

    def __call__(self, answers: Sequence[KeptAnswer]) -> list[Score]:
        """The rows of the answers, in their order."""
        indices: dict[str, list[int]] = defaultdict(list)
        for index, kept in enumerate(answers):
            indices[kept.answer.request.group].append(index)
        rows: dict[int, Score] = {}
        for name, of_task in indices.items():
            task = self._tasks[name]
            graded = graded_answers([answers[index] for index in of_task], task.grader, self._settings)
            for index, fields in zip(of_task, graded, strict=True):
                cost = answers[index].answer.cost
                extra = {"split": EVALUATION, "task": name} | ({} if cost is None else {"cost": cost})
                rows[index] = _with_metrics(Score.model_validate(fields | extra), task)
        return [rows[index] for index in range(len(answers))]


def grade_again(rows: Sequence[Score], task: Task, problems: Sequence[Problem]) -> list[Score]:
    """Rows of one task with the verdicts that their answers get now; fields of the answers stay.

    Args:
        rows: graded answers.
        task: grades them.
        problems: the problem of each row.
    """
    completions = [
        Completion(problem, row.response, row.finish_reason) for row, problem in zip(rows, problems, strict=True)
    ]
    graded = []
    for row, completion, grade in zip(rows, completions, grade_answers(completions, task.grader), strict=True):
        problem = completion.problem
        fields = {name: value for name, value in _fields(row).items() if name not in ("grader", "metrics")}
        fields |= _fields(problem) | grader_field(problem, task.grader) | graded_fields(completion, grade)
        graded.append(_with_metrics(Score.model_validate(fields), task))
    return graded


def _fields(row: Problem) -> dict[str, Any]:
    return row.model_dump(exclude_unset=True)


def _with_metrics(row: Score, task: Task) -> Score:
    """The row with the further numbers of its task."""
    if task.metrics is None:
        return row
    return Score.model_validate(_fields(row) | {"metrics": task.metrics(row)})
