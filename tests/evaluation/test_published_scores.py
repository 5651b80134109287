"""Published scores beside those of an evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from spotcli.core.stats import Estimate
from spotcli.errors import RecipeError
from spotcli.evaluation.published_scores import GROUPS, TABLES, compare_published, published_table
from spotcli.evaluation.scores import ModelScores, PublishedComparison, TaskScore
from spotcli.evaluation.tasks.builtin import BUILTIN


def task_score(task: str, mean: float, *, error: float = 0.01, problems: int | None = None) -> TaskScore:
    count = problems or BUILTIN[task].published_rows or 500
    estimate = Estimate(mean, mean - 2 * error, mean + 2 * error, error, count, count * BUILTIN[task].trials)
    counts: dict[str, Any] = dict.fromkeys(("right", "wrong", "undecided", "truncated", "failed", "tokens"), 0)
    return TaskScore(
        task, BUILTIN[task].group, False, estimate, mean, None, **counts, seconds=None, metrics={}, chance={}
    )


def model(**means: float) -> ModelScores:
    return ModelScores("m", "m.jsonl", {task: task_score(task, mean) for task, mean in means.items()}, {})


def by_row(rows: list[PublishedComparison]) -> dict[tuple[str, str], PublishedComparison]:
    return {(row.name, row.role): row for row in rows}


def test_the_groups_are_those_of_the_tasks() -> None:
    for group in ("in-domain", "OOD", "IFEval"):
        assert all(BUILTIN[task].group == group for task in GROUPS[group])
    assert len(GROUPS["overall"]) == 9


def test_the_printed_averages_agree_with_each_other() -> None:
    # Six in-domain tasks, two OOD tasks and IFEval, each rounded to 0.05; one row is off by one more digit.
    for name, table in TABLES.items():
        for index in range(2 if "overall" in table.scores else 0):
            parts = {group: float(scores[index]) for group, scores in table.scores.items()}
            mean = (6 * parts["in-domain"] + 2 * parts["OOD"] + parts["IFEval"]) / 9
            assert mean == pytest.approx(parts["overall"], abs=0.11), name


def test_every_row_is_inside_or_outside() -> None:
    table = TABLES["qwen3-8b-spot"]
    base = model(**dict.fromkeys(GROUPS["in-domain"], 0.468), gpqa=0.489, connect4=0.109, ifeval=0.83)
    tuned = model(**dict.fromkeys(GROUPS["in-domain"], 0.6), gpqa=0.468, connect4=0.36, ifeval=0.84)
    rows = by_row(compare_published(table, [base, tuned]))
    assert len(rows) == 10
    assert [rows[name, "base"].inside for name in (*GROUPS, "connect4")] == [True] * 5
    # Six tasks with an interval of +-2 points each: that of the mean is +-2 / sqrt(6) = 0.8.
    mean = rows["in-domain", "tuned"]
    assert mean.mean == pytest.approx(0.6)
    assert mean.published == pytest.approx(0.521)
    assert mean.inside is False
    assert mean.high is not None
    assert mean.high - 0.6 == pytest.approx(0.02 / 6**0.5, rel=1e-3)
    assert rows["IFEval", "tuned"].inside, "0.848 is inside 0.82 to 0.86"
    assert rows["connect4", "tuned"].model == "linius/Qwen3-8B-SPoT"


def test_a_score_is_inside_within_its_rounding() -> None:
    table = TABLES["qwen3-8b-spot"]
    for mean, inside in ((0.3799, True), (0.3806, False)):
        # The interval is +-2 points; 36.0 may be 36.05.
        rows = by_row(compare_published(table, [model(connect4=mean)]))
        assert rows["connect4", "tuned"].inside is inside


def test_missing_tasks_and_other_numbers_of_problems_are_noted() -> None:
    scores = {"ifeval": task_score("ifeval", 0.8, problems=20), "gpqa": task_score("gpqa", 0.4)}
    rows = by_row(compare_published(TABLES["qwen3-8b-spot"], [ModelScores("m", "", scores, {})]))
    assert {role for _, role in rows} == {"tuned"}, "there is no base model"
    assert (rows["OOD", "tuned"].inside, rows["OOD", "tuned"].note) == (None, "not evaluated: connect4")
    assert rows["IFEval", "tuned"].note == "ifeval: 20 of 541 problems"


def test_a_score_that_the_stated_trials_cannot_give_is_noted() -> None:
    # 14.7 % of 16 * 30 answers is 70.56: 70 are 14.6 %, 71 are 14.8 %. 12.7 % is 61 answers, 46 % is 294 of 640.
    rows = by_row(compare_published(TABLES["qwen3-1.7b-spot"], [model(aime24=0.1), model(aime24=0.1, amc23=0.5)]))
    assert rows["aime24", "tuned"].note == "14.7 cannot be the mean of 16 trials of 30 problems"
    assert rows["aime24", "base"].note is None
    assert rows["amc23", "tuned"].note is None


def test_an_unknown_table_is_refused() -> None:
    assert published_table(None) is None
    with pytest.raises(RecipeError, match="unknown table of scores 'qwen3-8b-spott'") as caught:
        published_table("qwen3-8b-spott")
    assert caught.value.cure == "did you mean 'qwen3-8b-spot'?"


def test_a_published_score_keeps_its_decimals() -> None:
    # 41 can be any number from 40.5 to 41.5, so it is inside an interval from 41.3; 14.7 has one decimal.
    [base, _] = [
        row for row in compare_published(TABLES["qwen3-1.7b-spot"], [model(amc23=0.433)] * 2) if row.name == "amc23"
    ]
    assert (base.printed, base.inside) == ("41", True)
    assert base.low == pytest.approx(0.413)
    rows = by_row(compare_published(TABLES["qwen3-1.7b-spot"], [model(aime24=0.13)]))
    assert rows["aime24", "tuned"].printed == "14.7"
