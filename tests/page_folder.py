"""A folder with every file that the commands of the pages name, made by spot itself from two-step arithmetic.

The policy is a tiny model in a folder with the name of a model of the hub, so that `--model Qwen/Qwen3-8B` finds it.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.page_commands import ROOT
from tests.tiny_model import teach, write_tiny_model

MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-4B", "linius/Qwen3-8B-SPoT")
TINY = MODELS[0]
RECIPE = f"""
name: NAME
model: {TINY}
sample: {{problems: problems.jsonl, max_new_tokens: 80, temperature: 0.3, trials: 2}}
rectify: {{oracle: symbolic}}
train: {{batch_size: 4, max_steps: 2, learning_rate: 1e-4}}
eval: {{tasks: [mine.jsonl], max_new_tokens: 80}}
"""
SHARDED = RECIPE.replace("problems.jsonl,", "problems.jsonl, output: sharded.jsonl,")
PUBLISHED = {"aime24": 30, "math500": 500, "ifeval": 541}
"""Tasks and the number of problems of their sets."""


def problem(number: int) -> dict[str, str]:
    """A problem in two steps, ``57 + 23 - 9`` for 1, or in one; its solution is the answer."""
    a, b, c = numbers(number)
    prompt, result = (f"{a} + {b}", a + b) if number % 4 == 3 else (f"{a} + {b} - {c}", a + b - c)
    return {"id": f"sum-{number}", "prompt": prompt, "answer": str(result), "source": "builtin:arithmetic"}


def numbers(number: int) -> tuple[int, int, int]:
    chance = random.Random(number)
    return (57, 23, 9) if number == 1 else (chance.randint(10, 69), chance.randint(11, 29), chance.randint(2, 9))


def solution(number: int) -> str:
    """The right answer to a problem."""
    return steps(number, 0, 0)


def slip(number: int) -> str:
    """The answer of the prepared samples: wrong from the first or the last step on; every fourth one is right."""
    return steps(number, *{0: (0, 0), 1: (10, 10), 2: (0, 10), 3: (10, 10)}[number % 4])


def steps(number: int, first: int, last: int) -> str:
    """The steps of an answer, whose results are wrong by ``first`` and ``last``."""
    a, b, c = numbers(number)
    total, result = a + b + first, a + b - c + last
    if number % 4 == 3:
        return f"{a} + {b} = {total}\nThe answer is \\boxed{{{total}}}."
    return f"{a} + {b} = {total}\n{total} - {c} = {result}\nThe answer is \\boxed{{{result}}}."


def write_inputs(folder: Path) -> None:
    """Write models, recipes and sets of problems."""
    tiny = write_tiny_model(folder / TINY)
    # It knows its problems by heart, three of four with a slip.
    teach(tiny, [(problem(n)["prompt"], slip(n)) for n in (*range(1, 25), *range(101, 105))], steps=500)
    for name in MODELS[1:]:
        shutil.copytree(tiny, folder / name)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "r.yaml").write_text(SHARDED)
    write_rows(folder / "problems.jsonl", problem, 24)
    write_answers(folder / "answers.jsonl")
    write_preferences(folder / "preferences.parquet")
    write_rows(folder / "mine.jsonl", lambda number: problem(100 + number), 4)
    write_benchmarks(folder / "benchmarks")


def write_rows(path: Path, row: Callable[[int], dict[str, Any]], count: int) -> None:
    """Write rows 1 to ``count``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(1, count + 1)), encoding="utf-8")


def write_answers(path: Path) -> None:
    write_rows(path, lambda number: problem(number) | {"response": slip(number)}, 24)


def write_preferences(path: Path) -> None:
    """Write pairs as TRL has them."""
    import pyarrow
    from pyarrow import parquet

    rows = [{"prompt": problem(n)["prompt"], "chosen": solution(n), "rejected": slip(n)} for n in (1, 2, 3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_benchmarks(folder: Path) -> None:
    """Write sets with the names, columns and sizes of published ones, as a reader without the hub has them."""
    for task in ("aime24", "math500"):
        write_rows(folder / f"{task}.jsonl", lambda n: {"problem": problem(n)["prompt"] + f" ({n})", "answer": "7"},
                   PUBLISHED[task])  # fmt: skip
    write_rows(folder / "ifeval.jsonl", instruction, PUBLISHED["ifeval"])
    write_rows(folder / "gpqa_diamond.jsonl", choice, 198)


def instruction(number: int) -> dict[str, Any]:
    return {
        "key": number,
        "prompt": f"Write about the number {number} without a comma.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }


def choice(number: int) -> dict[str, str]:
    wrong = {f"Incorrect Answer {n}": f"{number + n}" for n in (1, 2, 3)}
    return {"Record ID": f"rec{number}", "Question": f"What is {number} + 0?", "Correct Answer": str(number)} | wrong


PREPARATION = (
    "spot sample --grade answers.jsonl",
    "spot rectify --oracle symbolic",
    "spot train recipe.yaml",
    f"spot eval checkpoint --against {TINY} --task mine.jsonl --max-new-tokens 80",
    "cp scores/checkpoint.jsonl scores/earlier.jsonl",
    "spot run recipe.yaml",
    "spot run recipes/smollm2-135m.yaml",
    "spot run recipe.yaml -s rectify.gamma=0.4 -o runs/gamma-0.4",
    "cp -r runs/NAME runs/gamma-0.6",
)
"""Commands that make the other files."""
