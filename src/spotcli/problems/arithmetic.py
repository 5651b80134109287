"""Two-step mental arithmetic, generated from a seed: easy enough that a small model makes slips, not failures.

Each problem is a chat with two worked examples as earlier turns, so that an untrained model answers in their format:
one step per line, the last line boxed. A hash of its expression assigns a problem to the train or the test split, so
the splits are disjoint for any seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal

from spotcli.records import Message, Problem

Split = Literal["train", "test"]

TEST_SHARE = 0.25
"""Share of the expressions that are in the test split."""


def _worked(first: str, first_result: int, second: str, result: int) -> str:
    return f"{first} = {first_result}\n{second} = {result}\n\\boxed{{{result}}}"


def _example(question: str, first: str, first_result: int, second: str, result: int) -> list[Message]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": _worked(first, first_result, second, result)},
    ]


EXAMPLES: list[Message] = [
    *_example("6 * 8 + 15", "6 * 8", 48, "48 + 15", 63),
    *_example("12 + 30 - 7", "12 + 30", 42, "42 - 7", 35),
]


def _times_plus(r: random.Random) -> tuple[str, int]:
    a, b, c = r.randint(2, 9), r.randint(2, 9), r.randint(2, 30)
    return f"{a} * {b} + {c}", a * b + c


def _times_minus(r: random.Random) -> tuple[str, int]:
    a, b = r.randint(2, 9), r.randint(2, 9)
    c = r.randint(1, a * b - 1)
    return f"{a} * {b} - {c}", a * b - c


def _plus_minus(r: random.Random) -> tuple[str, int]:
    a, b = r.randint(2, 40), r.randint(2, 40)
    c = r.randint(1, a + b - 1)
    return f"{a} + {b} - {c}", a + b - c


FAMILIES: dict[str, Callable[[random.Random], tuple[str, int]]] = {
    "times-plus": _times_plus,
    "times-minus": _times_minus,
    "plus-minus": _plus_minus,
}


def split_of(expression: str) -> Split:
    """The split of an expression; the same for every seed."""
    fraction = int.from_bytes(hashlib.sha256(expression.encode()).digest()[:8]) / 2**64
    return "test" if fraction < TEST_SHARE else "train"


def generate(seed: int, split: Split) -> Iterator[Problem]:
    """Distinct problems of a split, one family after another, until one family has no new expression."""
    r = random.Random(f"arithmetic:{split}:{seed}")
    seen: set[str] = set()
    while True:
        for family, draw in FAMILIES.items():
            for _ in range(10_000):
                expression, answer = draw(r)
                if expression not in seen and split_of(expression) == split:
                    break
            else:
                return  # no new expression in this family
            seen.add(expression)
            yield Problem(
                id=f"arithmetic-{expression.replace(' ', '')}",
                prompt=[*EXAMPLES, {"role": "user", "content": expression}],
                answer=str(answer),
                source=f"builtin:arithmetic/{split}/{family}",
            )


def take(seed: int, split: Split, number: int) -> list[Problem]:
    """The first ``number`` problems of a split, or all of them if it has fewer."""
    return [problem for problem, _ in zip(generate(seed, split), range(number), strict=False)]
