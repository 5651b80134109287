"""Published scores of models, and whether they are inside the intervals of an evaluation.

The numbers are those of "Surgical Post-Training: Cutting Errors, Keeping Knowledge" (Lin and Han, arXiv 2603.01683,
second version of May 2026), in percent as printed. ``eval.published`` selects a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from spotcli.core.stats import attainable, average_score
from spotcli.errors import RecipeError
from spotcli.evaluation.scores import ModelScores, PublishedComparison, Role
from spotcli.evaluation.tasks.builtin import BUILTIN
from spotcli.recipe import suggest

MATHEMATICS = ("aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench")
GROUPS: dict[str, tuple[str, ...]] = {"in-domain": MATHEMATICS, "OOD": ("gpqa", "connect4"), "IFEval": ("ifeval",)}
GROUPS["overall"] = tuple(task for tasks in GROUPS.values() for task in tasks)
"""Row of the published tables -> the tasks whose scores it is the mean of."""


@dataclass(frozen=True)
class PublishedTable:
    """The published scores of a base model and of a model trained from it."""

    base: str
    tuned: str
    """The model, or the objective if the model was not released."""
    scores: Mapping[str, tuple[str, str]]
    """Task or group -> score of the base model and of the trained model."""


def _tables(
    prefix: str, base: str, rows: Mapping[str, tuple[str, ...]], models: Mapping[str, str]
) -> dict[str, PublishedTable]:
    """Tables of one base model; the row ``base`` has its scores, every other row is a table.

    Args:
        prefix: of the names of the tables.
        base: the base model.
        rows: objective -> scores in the order of ``GROUPS``.
        models: objective -> the released model.
    """
    before = rows["base"]
    return {
        f"{prefix}-{objective}": PublishedTable(
            base, models.get(objective, objective), dict(zip(GROUPS, zip(before, after, strict=True), strict=True))
        )
        for objective, after in rows.items()
        if objective != "base"
    }


TABLES = {
    **_tables(
        "qwen3-8b",
        "Qwen/Qwen3-8B",
        {
            "base": ("46.8", "29.9", "83.0", "47.1"),
            "spot": ("52.1", "41.4", "84.8", "53.3"),
            "spot-bce": ("51.5", "40.3", "85.8", "52.8"),
            "dpo": ("46.9", "40.4", "84.7", "49.6"),
            "reward-sft": ("45.3", "42.2", "83.7", "48.9"),
            "sft-plus": ("50.5", "30.7", "80.0", "49.4"),
            "sft": ("41.0", "25.5", "79.6", "41.8"),
            "rft": ("47.3", "26.1", "81.5", "46.4"),
            "dft": ("48.8", "24.7", "79.5", "46.9"),
        },
        {"spot": "linius/Qwen3-8B-SPoT"},
    ),
    **_tables(
        "llama-3.1-8b",
        "meta-llama/Llama-3.1-8B-Instruct",
        {
            "base": ("18.6", "16.8", "73.6", "24.3"),
            "spot": ("20.7", "18.5", "73.2", "26.0"),
            "sft-plus": ("19.9", "16.7", "68.6", "24.6"),
            "sft": ("18.0", "15.7", "62.1", "22.4"),
            "rft": ("18.0", "17.2", "71.2", "23.7"),
        },
        {"spot": "linius/Llama3.1-8B-SPoT"},
    ),
    "qwen3-1.7b-spot": PublishedTable(
        "Qwen/Qwen3-1.7B", "spot", {"aime24": ("12.7", "14.7"), "amc23": ("41", "46"), "connect4": ("0", "0")}
    ),
}
"""Tables by the name in ``eval.published``."""

_SPOT = TABLES["qwen3-8b-spot"]
TABLES["qwen3-8b-spot"] = PublishedTable(_SPOT.base, _SPOT.tuned, {**_SPOT.scores, "connect4": ("10.9", "36.0")})


def published_table(name: str | None) -> PublishedTable | None:
    """The table of a name; None for None.

    Raises:
        RecipeError: the name is unknown.
    """
    if name is None or name in TABLES:
        return TABLES[name] if name else None
    raise RecipeError(f"unknown table of scores '{name}'", where="eval.published", cure=suggest(name, list(TABLES)))


def compare_published(table: PublishedTable, models: Sequence[ModelScores]) -> list[PublishedComparison]:
    """Every published score beside that of this evaluation.

    Args:
        table: the published scores.
        models: the evaluated model; before it, the base model if there is one.
    """
    roles: list[tuple[Role, str]] = [("base", table.base), ("tuned", table.tuned)]
    return [
        _compare(name, role, model, printed[role == "tuned"], own)
        for (role, model), own in zip(roles[-len(models) :], models, strict=True)
        for name, printed in table.scores.items()
    ]


def _compare(name: str, role: Role, model: str, printed: str, own: ModelScores) -> PublishedComparison:
    tasks = GROUPS.get(name, (name,))
    published = float(printed) / 100
    notes = list(_notes(tasks, printed, own))
    scores = [own.scores[task] for task in tasks if task in own.scores]
    if len(scores) < len(tasks):
        missing = ", ".join(task for task in tasks if task not in own.scores)
        notes.append(f"not evaluated: {missing}")
        return PublishedComparison(name, role, model, published, None, None, None, None, "; ".join(notes), printed)
    average = average_score({score.task: score.estimate for score in scores})
    rounding = 0.5 * 10.0 ** -(len(printed.partition(".")[2]) + 2)
    mean, low, high = average.mean, average.low, average.high
    inside = low - rounding <= published <= high + rounding
    return PublishedComparison(name, role, model, published, mean, low, high, inside, "; ".join(notes) or None, printed)


def _notes(tasks: Sequence[str], printed: str, own: ModelScores) -> Iterator[str]:
    """What limits the comparison: a score that the stated trials cannot give, and other numbers of problems."""
    for task in tasks:
        rows, trials = BUILTIN[task].published_rows, BUILTIN[task].trials
        if rows and len(tasks) == 1 and not attainable(printed, rows, trials):
            yield f"{printed} cannot be the mean of {trials} trials of {rows} problems"
        if rows and task in own.scores and own.scores[task].estimate.problems != rows:
            yield f"{task}: {own.scores[task].estimate.problems} of {rows} problems"
