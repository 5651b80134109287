"""The files of an export for verl: train.parquet, reward.py, grpo.sh."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from spotcli.exporting.rewards import graded_fields
from spotcli.records import Problem

COMMAND = "bash grpo.sh"
PACKAGES = "verl>=0.8"
UNDECIDED = """verl needs a number for every answer: in `reward.py`, `UNDECIDED = 0.0`, as for a wrong one. The metric
`undecided` counts them; if it is high, look at the answers before you trust the reward."""

_REWARD = '''"""Reward of GRPO in verl: answers are graded as `spot sample` grades them."""

from spotcli.exporting.rewards import verl_score

GRADER = {grader!r}
"""Grades problems that name no grader."""
UNDECIDED = 0.0
"""Score of an answer that cannot be graded; verl needs a number."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **more):
    return verl_score(solution_str, ground_truth, extra_info, grader=GRADER, undecided=UNDECIDED)
'''

_SCRIPT = """#!/bin/bash
# GRPO from a model of spot, with verl. Further arguments override those below: bash grpo.sh trainer.nnodes=2
# Gains are measured with `spot eval`, so verl validates nothing; it requires a validation file all the same.
FOLDER=$(cd "$(dirname "$0")" && pwd)
python3 -m verl.trainer.main_ppo \\
    algorithm.adv_estimator=grpo \\
    data.train_files="$FOLDER/train.parquet" \\
    data.val_files="$FOLDER/train.parquet" \\
    data.train_batch_size={batch} \\
    data.max_prompt_length=2048 \\
    data.max_response_length={length} \\
    data.filter_overlong_prompts=True \\
{template}    reward.custom_reward_function.path="$FOLDER/reward.py" \\
    reward.custom_reward_function.name=compute_score \\
    actor_rollout_ref.model.path={model} \\
    actor_rollout_ref.actor.optim.lr=1e-6 \\
    actor_rollout_ref.actor.ppo_mini_batch_size={batch} \\
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1 \\
    actor_rollout_ref.actor.use_kl_loss=True \\
    actor_rollout_ref.rollout.name=vllm \\
    actor_rollout_ref.rollout.n=8 \\
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1 \\
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1 \\
    trainer.val_before_train=False \\
    trainer.test_freq=-1 \\
    "$@"
"""
_BATCH = 128
"""Prompts per training step."""


def files(problems: Iterable[Problem], model: str, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """The files by name.

    Args:
        problems: what is trained on.
        model: the starting policy.
        facts: ``grader``, ``max_new_tokens`` and ``chat_template_kwargs`` of the samples.
    """
    rows = [
        {
            "data_source": (problem.source or "spot").partition("#")[0] or "spot",
            "prompt": [{"role": message["role"], "content": message["content"]} for message in problem.messages],
            "ability": "math" if (problem.grader or facts["grader"]) == "math" else "reasoning",
            "reward_model": {"style": "rule", "ground_truth": problem.reference},
            "extra_info": {"split": "train", "index": index, "id": problem.id, "problem": graded_fields(problem)},
        }
        for index, problem in enumerate(problems)
    ]
    template = "".join(
        f"    {shlex.quote(f'+data.apply_chat_template_kwargs.{name}={json.dumps(value)}')} \\\n"
        for name, value in facts["chat_template_kwargs"].items()
    )
    script = _SCRIPT.format(
        batch=min(_BATCH, len(rows)), length=facts["max_new_tokens"], template=template, model=shlex.quote(model)
    )
    return {
        "train.parquet": _parquet(rows),
        "reward.py": _REWARD.format(grader=facts["grader"]).encode(),
        "grpo.sh": script.encode(),
    }


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()
