"""An evaluation of two models and an earlier one on the paper's tasks, from rows on disk to its summary."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spotcli.core.stats.per_token import PerToken
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.drift import Drift, WorstPrompt
from spotcli.evaluation.scores import EvalSummary, PublishedComparison, TaskFacts
from spotcli.evaluation.summary import summarise
from spotcli.jsonl import read
from spotcli.records import Score

TASKS: Mapping[str, tuple[str, int, int, float, float]] = {
    # task: group, problems, trials, share right before, and after
    "aime24": ("in-domain", 30, 4, 0.29, 0.43),
    "aime25": ("in-domain", 30, 4, 0.21, 0.36),
    "amc23": ("in-domain", 40, 4, 0.70, 0.77),
    "math500": ("in-domain", 500, 1, 0.84, 0.88),
    "gpqa": ("OOD", 198, 1, 0.45, 0.45),
    "connect4": ("OOD", 500, 1, 0.10, 0.16),
    "ifeval": ("IFEval", 541, 1, 0.83, 0.83),
    "notes": ("other", 12, 1, 0.5, 0.4),
}
SMALL = {name: TASKS[name] for name in ("aime24", "gpqa", "notes")}
"""Enough tasks for most tests."""

DRIFT = Drift(
    mean=0.0123,
    tokens=8120,
    neutral=PerToken(0.0123, 0.0101, 0.0145, 0.0011, 32, 8120),
    own_right=PerToken(0.0041, 0.0032, 0.0050, 0.0004, 64, 41210),
    worst=[
        WorstPrompt("neutral", None, "letter-3", 0, 0.081, 240, 3.2, "Dear ⟦Ms Alvarez,", "Write a letter of thanks.")
    ],
)


PUBLISHED = [
    PublishedComparison("in-domain", "base", "Qwen/Qwen3-8B", 0.468, 0.505, 0.46, 0.55, True),
    PublishedComparison("in-domain", "tuned", "linius/Qwen3-8B-SPoT", 0.521, 0.594, 0.54, 0.64, False, "other k"),
    PublishedComparison("OOD", "tuned", "linius/Qwen3-8B-SPoT", 0.414, None, None, None, None),
]


def answer(id: str, right: bool, chance: random.Random) -> tuple[str, str]:
    """A worked solution and its answer; wrong ones differ in one step."""
    first, second = len(id) + 11, sum(map(ord, id)) % 89 + 10
    total = first + second if right else first + second + chance.choice((-10, -1, 1, 10))
    text = (
        f"Let $x$ be the number of pages that Ada reads on the first day.\n\n**Step 1.** The two days give "
        f"$x = {first} + {second}$.\n**Step 2.** Adding the tens first, ${first} + {second} = {total}$.\n\n"
        f"Therefore the answer is $\\boxed{{{total}}}$."
    )
    return text, str(total)


def rows(model: str, tasks: Mapping[str, Any], column: int, **more: Any) -> list[dict[str, Any]]:
    """Rows of one model; problems that are easy for one model are easy for the other."""
    made = []
    for task, spec in tasks.items():
        group, problems, trials = spec[:3]
        easy, chance = random.Random(task), random.Random(f"{task} {model}")
        for index in range(problems):
            # A problem's difficulty around the mean, and a coin for each answer.
            level = min(max(spec[column] + (easy.random() - 0.5) * 0.9, 0.02), 0.98)
            for trial in range(trials):
                id, right = f"{task}-{index}", chance.random() < level
                text, value = answer(id, right, chance)
                truncated = not right and chance.random() < 0.08
                made.append(
                    {
                        "id": id,
                        "prompt": f"Ada reads for two days. How many pages does she read? ({id})",
                        "answer": answer(id, True, chance)[1],
                        "split": "eval",
                        "task": task,
                        "trial": trial,
                        "response": text[:60] if truncated else text,
                        "finish_reason": "length" if truncated else "stop",
                        "verdict": "right" if right else "undecided" if truncated else "wrong",
                        "extracted": None if truncated else value,
                        "reason": "truncated" if truncated else None,
                        "tokens": 800 + 10 * index,
                        **({"metrics": {"prompt_strict": float(right)}} if group == "IFEval" else {}),
                        **more,
                    }
                )
    return made


def write_rows(path: Path, lines: list[dict[str, Any]]) -> ModelRows:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return ModelRows(path.stem, str(path), list(read(path, Score)), failed={"gpqa": 2}, seconds={"gpqa": 754.0})


def example(folder: Path, tasks: Mapping[str, Any] = SMALL, **more: Any) -> EvalSummary:
    """Write the scores of a base, a tuned and an earlier model, and return their summary.

    Args:
        folder: gets ``scores/``.
        tasks: as ``TASKS``.
        more: fields of every row of the tuned model.
    """
    scores = folder / "scores"
    models = [
        replace(write_rows(scores / "Qwen-Qwen3-8B.jsonl", rows("base", tasks, 3)), model="Qwen/Qwen3-8B"),
        replace(write_rows(scores / "checkpoint.jsonl", rows("tuned", tasks, 4, **more)), model="runs/spot/checkpoint"),
        replace(write_rows(scores / "sft.jsonl", rows("sft", tasks, 3)), model="runs/sft/checkpoint"),
    ]
    facts = {name: TaskFacts(spec[0], {"score": 0.52} if name == "connect4" else {}) for name, spec in tasks.items()}
    trained = [name for name, spec in tasks.items() if spec[0] == "in-domain"]
    summary = summarise(models, facts, compared=True, trained=trained, margin=0.02)
    return replace(
        summary,
        drift=DRIFT,
        published=PUBLISHED,
        overlaps={"aime24": 0, "notes": 3},
        settings={"eval": {"tasks": list(tasks), "temperature": 0.7, "top_p": 0.8}, "seed": 0},
        versions={"spotcli": "0.1", "python": "3.11.9", "torch": "2.13.0"},
        seconds=5400.0,
        files=[model.path for model in models],
    )
