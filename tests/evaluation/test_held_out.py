"""Problems that an evaluation holds: found through typesetting and wrappers, and nothing else taken for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spotcli.errors import UserError
from spotcli.evaluation.held_out import Evaluations
from spotcli.evaluation.tasks import arithmetic as arithmetic_task
from spotcli.evaluation.tasks import connect4
from spotcli.problems import arithmetic
from spotcli.problems.sources import iter_problems
from spotcli.records import Message, Problem
from tests.conftest import write_rows

# 34 words, so 22 runs of 13.
LONG = (
    "Let $ABC$ be a triangle with $AB = 13$, $BC = 14$ and $CA = 15$. A circle through $A$ touches the side $BC$ at "
    "its midpoint and meets $AB$ again at $P$. Find $\\frac{AP}{PB}$."
)
SHORT = "Compute $\\dbinom{8}{4}$."


def evaluations(folder: Path, *prompts: str) -> Evaluations:
    write_rows(folder / "eval.jsonl", [{"prompt": prompt} for prompt in prompts])
    return Evaluations(["eval.jsonl"], folder=folder, seed=0)


@pytest.mark.parametrize(
    "prompt",
    [
        LONG,
        LONG.replace("$", "").replace("\\frac{AP}{PB}", "AP / PB").upper(),
        # Without the eleventh word, 11 runs are left.
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
        # The same beginning of 14 words is 2 of the 22 runs.
        "Let $ABC$ be a triangle with $AB = 13$, $BC = 14$ and $CA = 15$. A line is drawn.",
        "",
    ],
)
def test_another_problem_is_not(tmp_path: Path, prompt: str) -> None:
    found = evaluations(tmp_path, LONG, SHORT)
    assert found.holder(Problem.model_construct(prompt=prompt)) is None


def test_signs_tell_short_problems_apart(tmp_path: Path) -> None:
    found = evaluations(tmp_path, "6 * 8 + 15", "1.5 + 2")
    assert found.holder(Problem(prompt="6*8+15")) == "eval.jsonl"
    assert found.holder(Problem(prompt="6 * 8 - 15")) is None
    assert found.holder(Problem(prompt="15 + 2")) is None


def test_only_what_is_asked_last_counts(tmp_path: Path) -> None:
    def chat(question: str) -> list[Message]:
        return [
            {"role": "system", "content": LONG},
            {"role": "user", "content": LONG},
            {"role": "assistant", "content": LONG},
            {"role": "user", "content": question},
        ]

    write_rows(tmp_path / "eval.jsonl", [{"prompt": chat("1 + 1?")}])
    found = Evaluations(["eval.jsonl"], folder=tmp_path, seed=0)
    assert found.holder(Problem(prompt=chat("1 + 2?"))) is None
    assert found.holder(Problem(prompt=chat("1 + 1?"))) == "eval.jsonl"


def test_what_three_problems_have_in_common_is_wording(tmp_path: Path) -> None:
    rules = " ".join(f"rule {at}" for at in range(20))
    asked = [f"{name} {' '.join(f'{name}{at}' for at in range(20))} {rules}" for name in "abc"]
    found = evaluations(tmp_path, *asked)
    assert found.holder(Problem(prompt=f"other words {rules}")) is None
    assert [found.holder(Problem(prompt=prompt)) for prompt in asked] == ["eval.jsonl"] * 3
    # Two of them do not make it one.
    assert evaluations(tmp_path, *asked[:2]).holder(Problem(prompt=f"other words {rules}")) == "eval.jsonl"


def test_the_first_set_that_holds_it_is_named(tmp_path: Path) -> None:
    for name, prompts in {"one": [LONG], "two": [LONG, SHORT], "three": [LONG]}.items():
        write_rows(tmp_path / f"{name}.jsonl", [{"prompt": prompt} for prompt in prompts])
    found = Evaluations(["one.jsonl", "two.jsonl", "three.jsonl", "arithmetic"], folder=tmp_path, seed=3)
    assert found.holder(Problem(prompt=f"Solve: {LONG}")) == "one.jsonl"
    assert found.holder(Problem(prompt=SHORT)) == "two.jsonl"
    assert found.holder(arithmetic_task.problems(3)[5]) == "arithmetic"
    with pytest.raises(UserError, match=r"nowhere\.jsonl: file not found"):
        Evaluations(["nowhere.jsonl"], folder=tmp_path, seed=0)


def test_the_train_splits_of_the_tasks_are_clean(tmp_path: Path) -> None:
    found = Evaluations(["arithmetic", "connect4"], folder=tmp_path, seed=0)
    assert not any(found.holder(problem) for problem in arithmetic.take(0, "train", 600))
    # Boards have all rules and most of their lines in common, and no two splits have a board.
    assert not any(found.holder(problem) for problem in connect4.take(0, "train", 300))
    assert [found.holder(problem) for problem in connect4.problems(0, 5)] == ["connect4"] * 5


def test_published_sets(shared: Path) -> None:
    tests = ["math500.jsonl", "aime24.jsonl", "aime25.jsonl", "amc23.jsonl", "olympiadbench.jsonl", "gsm8k_test.jsonl"]
    found = Evaluations(tests, folder=shared, seed=0)

    def held(name: str) -> Counter[str | None]:
        return Counter(map(found.holder, iter_problems(name, folder=shared, seed=0, limit=None, quiet=True)))

    # All thirteen were looked at: each is the evaluation's problem, a few of them with another ending. Shared turns of
    # phrase ("where m and n are relatively prime positive integers. Find m + n") would make it 42.
    dapo = {"math500.jsonl": 4, "amc23.jsonl": 4, "olympiadbench.jsonl": 5}
    assert held("dapo_math_en_1k.jsonl") == {**dapo, None: 1000 - 13}
    # Bella's stamps are Max's stamps with other numbers.
    assert held("gsm8k_train_1k.jsonl") == {"gsm8k_test.jsonl": 1, None: 999}
    assert held("aime24.jsonl")[None] == held("math500.jsonl")[None] == 0
