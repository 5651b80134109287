"""Rows of every kind that `spot inspect` shows, as spot and other tools write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spotcli.reply_entries import Entry, MoneyEntry, ReplyEntry, UndoEntry
from tests.inspection.example_pairs import write_rows

ENDS = [("right", "stop", None), ("wrong", "stop", None), ("undecided", "length", "truncated")]


def sample_rows() -> list[dict[str, Any]]:
    """Two problems with three answers each: right, wrong, and truncated."""
    return [
        {
            "id": f"p{problem}",
            "prompt": f"What is {problem} + 1?",
            "answer": str(problem + 1),
            "source": "sums#1",
            "trial": trial,
            "response": f"We add {problem} and 1: {problem + 1 + trial}." + " and" * 10 * trial,
            "finish_reason": finish,
            "verdict": verdict,
            "reason": reason,
            "tokens": 10 * (trial + 1),
            "sampling": {"model": "tiny", "temperature": 1.0, "cost": 0.01},
        }
        for problem in range(2)
        for trial, (verdict, finish, reason) in enumerate(ENDS)
    ]


def reply_rows() -> list[dict[str, Any]]:
    """Two replies, one of them truncated and declined, a reservation that was returned, and an undone reply."""
    replies = [
        ReplyEntry(
            key=f"k{number}",
            id=f"p{number}",
            trial=0,
            sample="0123",
            attempt=number,
            oracle="gpt-4o",
            version="1",
            prompt="7",
            mode="rewrite",
            fence="",
            text=f"<corrected>fixed {number}</corrected>",
            finish_reason=("stop", "length")[number],
            reason=(None, "truncated")[number],
            usage={"prompt_tokens": 100, "completion_tokens": 20},
            cost=0.25,
            model="gpt-4o-2024-08-06",
            at=f"2026-11-28T04:33:0{number}+00:00",
            seconds=1.5,
        )
        for number in range(2)
    ]
    money = [MoneyEntry("sent", "k9", 0.5), MoneyEntry("free", "k9", 0.5)]
    entries: list[Entry] = [*replies, *money, UndoEntry.of(replies[0])]
    return [entry.as_row() for entry in entries]


def score_rows(right: str) -> list[dict[str, Any]]:
    """The answers of a model to one problem per letter: r is right, w is wrong."""
    lines = "\n".join(f"step {number}" for number in range(12))
    return [
        {
            "id": f"q{number}",
            "prompt": f"What is {number} + 1?",
            "answer": str(number + 1),
            "split": "eval",
            "task": "sums",
            "trial": 0,
            "response": f"{lines}\nThe sum is {number + 1 if letter == 'r' else 99}.",
            "finish_reason": "stop",
            "verdict": "right" if letter == "r" else "wrong",
        }
        for number, letter in enumerate(right)
    ]


def write_scores(folder: Path) -> Path:
    """Scores of a tuned model, q0 to q3: won, lost, both, neither; the summary beside them names the base model's."""
    write_rows(folder / "base.jsonl", score_rows("wrrw"))
    path = write_rows(folder / "tuned.jsonl", score_rows("rwrw"))
    summary = '{"against": "base", "models": [{"path": "base.jsonl"}, {"path": "tuned.jsonl"}]}'
    path.with_suffix(".summary.json").write_text(summary)
    return path


def preference_rows() -> list[dict[str, Any]]:
    """The forms of TRL: message lists, an implicit prompt, plain strings, a chat as one text, prompt and completion."""
    question = {"role": "user", "content": "What is 1 + 1?"}

    def answer(text: str) -> dict[str, str]:
        return {"role": "assistant", "content": text}

    return [
        {"prompt": [question], "chosen": [answer("It is 2.")], "rejected": [answer("It is 3.")]},
        {"chosen": [question, answer("So: 2.")], "rejected": [question, answer("So: 3.")], "score_chosen": 9.0},
        {"prompt": "What is 2 + 2?", "chosen": "Now 4.", "rejected": "Now 5.", "source": ["a", "b"]},
        {
            "chosen": "\n\nHuman: What is 3 + 3?\n\nAssistant: Then 6.",
            "rejected": "\n\nHuman: What is 3 + 3?\n\nAssistant: Then 7.",
        },
        {"prompt": "What is 4 + 4?", "completion": "Only 8."},
    ]
