"""The files of an export for TRL's ``GRPOTrainer``: train.jsonl, reward.py, train.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from spotcli.exporting.rewards import graded_fields
from spotcli.jsonl import encode
from spotcli.records import Problem

COMMAND = "accelerate launch train.py"
PACKAGES = "trl>=1.16"
UNDECIDED = """In `reward.py`, `UNDECIDED = None`: TRL gives an undecided answer no advantage and leaves it out of the
mean of its group, so the grader's doubt neither rewards nor punishes. An answer without a final answer is undecided
too; set `UNDECIDED = 0.0` to count all of these as wrong."""

_REWARD = '''"""Reward of GRPO in TRL: answers are graded as `spot sample` grades them."""

from spotcli.exporting.rewards import trl_rewards

GRADER = {grader!r}
"""Grades problems that name no grader."""
UNDECIDED = None
"""Reward of an answer that cannot be graded; None: it does not change the policy. A wrong answer gets 0.0."""


def reward(completions, problem, **columns):
    return trl_rewards(problem, completions, grader=GRADER, undecided=UNDECIDED)
'''

_TRAIN = '''"""GRPO from a model of spot, with TRL: {command}"""

from pathlib import Path

from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from reward import reward

FOLDER = Path(__file__).parent
MODEL = {model!r}
SETTINGS = {settings}


def trainer(**changes):
    """The trainer; `changes` are arguments of GRPOConfig."""
    config = GRPOConfig(**{{"output_dir": str(FOLDER / "grpo"), **SETTINGS, **changes}})
    data = load_dataset("json", data_files=str(FOLDER / "train.jsonl"), split="train")
    return GRPOTrainer(model=MODEL, reward_funcs=reward, args=config, train_dataset=data)


if __name__ == "__main__":
    trainer().train()
'''


def files(problems: Iterable[Problem], model: str, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """The files by name.

    Args:
        problems: what is trained on.
        model: the starting policy.
        facts: ``grader``, ``max_new_tokens`` and ``chat_template_kwargs`` of the samples.
    """
    rows = [
        {
            "prompt": [{"role": message["role"], "content": message["content"]} for message in problem.messages],
            "id": problem.id,
            "answer": problem.reference,
            "problem": graded_fields(problem),
        }
        for problem in problems
    ]
    settings = {
        "learning_rate": 1e-6,
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "max_completion_length": facts["max_new_tokens"],
        "temperature": 1.0,
        "mask_truncated_completions": True,
        "chat_template_kwargs": facts["chat_template_kwargs"] or None,
    }
    shown = "{\n" + "".join(f"    {json.dumps(name)}: {value!r},\n" for name, value in settings.items()) + "}"
    return {
        "train.jsonl": encode(rows),
        "reward.py": _REWARD.format(grader=facts["grader"]).encode(),
        "train.py": _TRAIN.format(command=COMMAND, model=model, settings=shown).encode(),
    }
