"""Files of scores as ``spot eval`` writes them, and what a hostile model could put into an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Verdicts = Mapping[str, str]
"""Id of a problem -> one letter per trial: r right, w wrong, u undecided, t truncated."""

_VERDICTS = {"r": "right", "w": "wrong", "u": "undecided", "t": "undecided"}


def score_row(id: str, trial: int, letter: str, *, task: str = "arithmetic", **more: Any) -> dict[str, Any]:
    """A row whose response depends on its verdict, so that a diff has something to show."""
    value = {"r": "42", "w": "43", "u": "?", "t": ""}[letter]
    return {
        "id": id,
        "prompt": f"What is 40 + 2? ({id})",
        "answer": "42",
        "split": "eval",
        "task": task,
        "trial": trial,
        "response": f"We add: 40 + 2 = {value}.\nThe answer is \\boxed{{{value}}}.",
        "finish_reason": "length" if letter == "t" else "stop",
        "verdict": _VERDICTS[letter],
        "extracted": value or None,
        "reason": {"u": "no answer", "t": "truncated"}.get(letter),
        "tokens": 20,
        **more,
    }


def write_scores(path: Path, verdicts: Verdicts, *, task: str = "arithmetic", **more: Any) -> Path:
    """Write rows for all problems; ``more`` are fields of every row."""
    rows = [
        score_row(id, trial, letter, task=task, **more)
        for id, letters in verdicts.items()
        for trial, letter in enumerate(letters)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


BASE: Verdicts = {"kept": "rr", "gone": "rw", "new": "ww", "never": "uw"}
TUNED: Verdicts = {"kept": "rr", "gone": "ww", "new": "wr", "never": "tw"}
"""One problem for each change: kept by both, lost, won, neither."""


def write_evaluation(folder: Path) -> tuple[Path, Path]:
    """Write the scores of a base and a tuned model, and the summary that names the base's; return base and tuned."""
    base = write_scores(folder / "scores" / "base.jsonl", BASE)
    tuned = write_scores(folder / "scores" / "tuned.jsonl", TUNED)
    summary = {"against": "base", "models": [{"path": str(base)}, {"path": str(tuned)}]}
    (folder / "scores" / "tuned.summary.json").write_text(json.dumps(summary))
    return base, tuned
