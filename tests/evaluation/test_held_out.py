"""Problems of evaluation sets are found in other typesetting and wrappers, and different problems are not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.evaluation.held_out import Evaluations, Overlap, overlaps
from spotcli.evaluation.tasks import TaskContext, connect4, load_task, load_tasks
from spotcli.problems import arithmetic
from spotcli.problems.sources import iter_problems
from spotcli.recipe_yaml import load as load_recipe
from spotcli.records import Message, Problem
from tests.conftest import write_rows
from tests.evaluation.tasks import published_rows

# 34 words, so 22 runs of 13.
LONG = (
    "Let $ABC$ be a triangle with $AB = 13$, $BC = 14$ and $CA = 15$. A circle through $A$ touches the side $BC$ at "
    "its midpoint and meets $AB$ again at $P$. Find $\\frac{AP}{PB}$."
)
SHORT = "Compute $\\dbinom{8}{4}$."


def evaluations(folder: Path, *prompts: str) -> Evaluations:
    write_rows(folder / "eval.jsonl", [{"prompt": prompt} for prompt in prompts])
    return Evaluations.of_sets(["eval.jsonl"], TaskContext(folder, seed=0))


@pytest.mark.parametrize(
    "prompt",
    [
        LONG,
        LONG.replace("$", "").replace("\\frac{AP}{PB}", "AP / PB").upper(),
        # Without the eleventh word, 11 runs remain.
        LONG.replace(" and ", ", ", 1),
        "Solve this step by step.\n\n" + LONG + "\n\nEnd with Answer:",
        "Consider this. " + LONG + " Give a decimal.",
        "compute \\(\\displaystyle \\dbinom 8 {4}\\)",
        "Solve this.\n\n" + SHORT + "\n\nEnd with a box.",
    ],
)
def test_the_same_problem_is_found(tmp_path: Path, prompt: str) -> None:
    assert evaluations(tmp_path, LONG, SHORT).holder(Problem(prompt=prompt)) == "eval.jsonl"


@pytest.mark.parametrize(
    "prompt",
    [
        "Compute $\\dbinom{8}{5}$.",
        "Compute $\\dbinom{8}{4}$ and add 1.",
        # The same first 14 words are 2 of the 22 runs.
        "Let $ABC$ be a triangle with $AB = 13$, $BC = 14$ and $CA = 15$. A line is drawn.",
        "",
    ],
)
def test_another_problem_is_not_found(tmp_path: Path, prompt: str) -> None:
    held_out = evaluations(tmp_path, LONG, SHORT)
    assert held_out.holder(Problem.model_construct(prompt=prompt)) is None


def test_signs_distinguish_short_problems(tmp_path: Path) -> None:
    held_out = evaluations(tmp_path, "6 * 8 + 15", "1.5 + 2")
    assert held_out.holder(Problem(prompt="6*8+15")) == "eval.jsonl"
    assert held_out.holder(Problem(prompt="6 * 8 - 15")) is None
    assert held_out.holder(Problem(prompt="15 + 2")) is None


def test_only_the_last_user_turn_counts(tmp_path: Path) -> None:
    def chat(question: str) -> list[Message]:
        return [
            {"role": "system", "content": LONG},
            {"role": "user", "content": LONG},
            {"role": "assistant", "content": LONG},
            {"role": "user", "content": question},
        ]

    write_rows(tmp_path / "eval.jsonl", [{"prompt": chat("1 + 1?")}])
    held_out = Evaluations.of_sets(["eval.jsonl"], TaskContext(tmp_path, seed=0))
    assert held_out.holder(Problem(prompt=chat("1 + 2?"))) is None
    assert held_out.holder(Problem(prompt=chat("1 + 1?"))) == "eval.jsonl"


def test_runs_of_three_problems_are_common_wording(tmp_path: Path) -> None:
    rules = " ".join(f"rule {index}" for index in range(20))
    prompts = [f"{name} {' '.join(f'{name}{index}' for index in range(20))} {rules}" for name in "abc"]
    held_out = evaluations(tmp_path, *prompts)
    assert held_out.holder(Problem(prompt=f"other words {rules}")) is None
    assert [held_out.holder(Problem(prompt=prompt)) for prompt in prompts] == ["eval.jsonl"] * 3
    # Runs of only two problems count.
    assert evaluations(tmp_path, *prompts[:2]).holder(Problem(prompt=f"other words {rules}")) == "eval.jsonl"


def test_the_first_set_that_contains_the_problem_is_named(tmp_path: Path) -> None:
    for name, prompts in {"one": [LONG], "two": [LONG, SHORT], "three": [LONG]}.items():
        write_rows(tmp_path / f"{name}.jsonl", [{"prompt": prompt} for prompt in prompts])
    held_out = Evaluations.of_sets(
        ["one.jsonl", "two.jsonl", "three.jsonl", "arithmetic"], TaskContext(tmp_path, seed=3)
    )
    assert held_out.holder(Problem(prompt=f"Solve: {LONG}")) == "one.jsonl"
    assert held_out.holder(Problem(prompt=SHORT)) == "two.jsonl"
    assert held_out.holder(load_task("arithmetic").load(TaskContext(seed=3))[5]) == "arithmetic"
    with pytest.raises(UserError, match=r"nowhere\.jsonl: file not found"):
        Evaluations.of_sets(["nowhere.jsonl"], TaskContext(tmp_path, seed=0))


def test_train_splits_have_no_test_problems(tmp_path: Path) -> None:
    held_out = Evaluations.of_sets(["arithmetic", "connect4"], TaskContext(tmp_path, seed=0))
    assert not any(held_out.holder(problem) for problem in arithmetic.take(0, "train", 600))
    # All boards share the rules and most of their lines, but no board is in both splits.
    assert not any(held_out.holder(problem) for problem in connect4.take(0, "train", 300))
    assert [held_out.holder(problem) for problem in connect4.problems(TaskContext(limit=5))] == ["connect4"] * 5


def test_overlaps_count_problems_and_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.jsonl", [{"id": "long", "prompt": LONG, "answer": "1"}, {"prompt": "2?", "answer": "2"}])
    write_rows(tmp_path / "two.jsonl", [{"id": "short", "prompt": SHORT, "answer": "70"}])
    (tmp_path / "two.yaml").write_text("problems: two.jsonl\ninstruction: End with a box.\n")
    tasks = load_tasks(["one.jsonl", "two.yaml", "arithmetic"], TaskContext(tmp_path, seed=3))
    pairs: list[dict[str, Any]] = [
        {"prompt": f"Solve this.\n\n{LONG}", "rejected": "2", "chosen": "1"},
        {"prompt": LONG.upper(), "rejected": "3", "chosen": "1"},
        {"question": SHORT, "rejected": "71", "chosen": "70"},
        {"prompt": "2?", "rejected": "3", "chosen": "2", "review": "reject"},  # not trained on
        {"text": "2?"},
        {"prompt": [{"role": "user", "content": "unrelated"}], "rejected": "3", "chosen": "2"},
    ]
    assert overlaps(tasks, write_rows(tmp_path / "data.jsonl", pairs)) == {
        "one.jsonl": Overlap(problems=1, rows=2, examples=["long"]),
        # With its instruction, the problem would be another text.
        "two.yaml": Overlap(problems=1, rows=1, examples=["short"]),
        "arithmetic": Overlap(problems=0, rows=0, examples=[]),
    }
    held_out = load_task("arithmetic").load(TaskContext(seed=3))[:7]
    write_rows(tmp_path / "data.jsonl", [problem.model_dump() for problem in held_out])
    found = overlaps(tasks, tmp_path / "data.jsonl")["arithmetic"]
    assert (found.problems, found.rows) == (7, 7)
    assert set(found.examples) < {problem.id for problem in held_out}
    with pytest.raises(UserError, match="file not found"):
        overlaps(tasks, tmp_path / "nowhere.jsonl")


def test_a_problem_of_two_tasks_overlaps_with_both(tmp_path: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        write_rows(tmp_path / name, [{"id": f"in {name}", "prompt": LONG, "answer": "1"}])
    write_rows(tmp_path / "data.jsonl", [{"prompt": LONG, "rejected": "2", "chosen": "1"}])
    found = overlaps(load_tasks(["one.jsonl", "two.jsonl"], TaskContext(tmp_path)), tmp_path / "data.jsonl")
    assert {name: overlap.examples for name, overlap in found.items()} == {
        "one.jsonl": ["in one.jsonl"],
        "two.jsonl": ["in two.jsonl"],
    }


def test_tasks_are_held_out_with_the_settings_of_the_recipe(tmp_path: Path) -> None:
    rows = published_rows.aime24(30)
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "aime24.jsonl", rows)
    write_rows(tmp_path / "mine.jsonl", [{"prompt": LONG, "answer": "1"}])
    settings = load_recipe(None, ["eval.data_dir=data", "eval.limit=1"])
    held_out = Evaluations.of_recipe(["aime24", "mine.jsonl"], settings, tmp_path)
    # The limit of an evaluation leaves no problem to train on.
    assert held_out.holder(Problem(prompt=rows[29]["problem"])) == "aime24"
    assert held_out.holder(Problem(prompt=LONG)) == "mine.jsonl"
    settings = load_recipe(None, ["eval.task_settings={amc23: {problems: mine.jsonl}}"])
    with pytest.raises(UserError, match=r"mine\.jsonl: expected the 40 published problems of amc23, got 1"):
        Evaluations.of_recipe(["amc23"], settings, tmp_path)


def test_published_sets(shared: Path) -> None:
    tests = ["math500.jsonl", "aime24.jsonl", "aime25.jsonl", "amc23.jsonl", "olympiadbench.jsonl", "gsm8k_test.jsonl"]
    held_out = Evaluations.of_sets(tests, TaskContext(shared, seed=0))

    def holders(name: str) -> Counter[str | None]:
        return Counter(map(held_out.holder, iter_problems(name, folder=shared, seed=0, limit=None, quiet=True)))

    # A person checked all thirteen: each is the problem of the evaluation set, a few with another ending. With common
    # wording ("where m and n are relatively prime positive integers. Find m + n"), it would be 42.
    dapo: dict[str | None, int] = {"math500.jsonl": 4, "amc23.jsonl": 4, "olympiadbench.jsonl": 5}
    assert holders("dapo_math_en_1k.jsonl") == dapo | {None: 1000 - 13}
    # A problem about Bella's stamps is one about Max's stamps with other numbers.
    assert holders("gsm8k_train_1k.jsonl") == {"gsm8k_test.jsonl": 1, None: 999}
    assert holders("aime24.jsonl")[None] == holders("math500.jsonl")[None] == 0
    loaded = load_tasks(["math500", "amc23", "olympiadbench"], TaskContext(data_dir=shared))
    counts = {name: overlap.problems for name, overlap in overlaps(loaded, shared / "dapo_math_en_1k.jsonl").items()}
    assert counts == {"math500": 4, "amc23": 4, "olympiadbench": 5}
