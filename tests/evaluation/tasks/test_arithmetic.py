"""The built-in arithmetic problems and their task."""

from __future__ import annotations

from collections import Counter

from spotcli.evaluation.tasks import TaskContext, load_task
from spotcli.grading import grade
from spotcli.problems import arithmetic
from spotcli.records import Problem


def problems(seed: int, number: int) -> list[Problem]:
    return load_task("arithmetic").load(TaskContext(seed=seed, limit=number))


def expression(problem: Problem) -> str:
    return problem.messages[-1]["content"]


def test_reference_answers_are_correct() -> None:
    for problem in arithmetic.take(3, "train", 200):
        left, operation, right = (
            expression(problem).rpartition(" ")[0].rpartition(" ")[0],
            *expression(problem).split()[-2:],
        )
        a, first, b = left.split()
        middle = int(a) * int(b) if first == "*" else int(a) + int(b)
        assert int(problem.answer or "") == (middle + int(right) if operation == "+" else middle - int(right))


def test_splits_are_disjoint_for_any_two_seeds() -> None:
    train = {problem.id for seed in range(4) for problem in arithmetic.take(seed, "train", 1500)}
    test = {problem.id for seed in range(4) for problem in arithmetic.take(seed, "test", 400)}
    assert len(train) > 1500
    assert len(test) > 400
    assert not train & test
    # The worked examples of the prompt are not in the test split.
    examples = {turn["content"].replace(" ", "") for turn in arithmetic.EXAMPLES if turn["role"] == "user"}
    assert not {f"arithmetic-{example}" for example in examples} & test


def test_problems_depend_only_on_the_seed() -> None:
    assert problems(0, 50) == problems(0, 50)
    assert problems(0, 50) != problems(1, 50)
    assert problems(0, 50) == problems(0, 400)[:50]


def test_families_alternate_without_repeated_problems() -> None:
    taken = arithmetic.take(0, "train", 300)
    assert len({problem.id for problem in taken}) == 300
    families = Counter((problem.source or "").rpartition("/")[2] for problem in taken)
    assert families == dict.fromkeys(arithmetic.FAMILIES, 100)


def test_a_split_is_finite() -> None:
    assert len(arithmetic.take(0, "test", 10**6)) < 10**4


def test_grading_reads_the_box() -> None:
    reference = problems(0, 1)[0].answer or ""
    assert grade(f"so\n\\boxed{{{reference}}}", reference).verdict == "right"
    assert grade("\\boxed{-1}", reference).verdict == "wrong"
    assert grade("I would rather not.", reference).verdict == "undecided"
