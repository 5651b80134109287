"""Generation checks: while a policy trains, does it still answer?

A loss says nothing of what the policy writes: it can fall while answers no longer end. So every ``train.check_every``
steps some of the problems that are trained on are answered greedily, graded and counted. They are the data's own, not
those of ``eval.tasks``: only they can show whether the corrections arrive, and a test split that is looked at while
training would become part of it. So what a check says is no measure of what was gained; that is ``spot eval``.

Nothing of it reaches the weights: answers are greedy and draw no random number that anything else would draw.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.core.forward.encoding import EncodedPair
from spotcli.grading.answers import Completion, grade_answer
from spotcli.grading.kinds import grader_of
from spotcli.policies import Answer, Failure, Request, Sampling
from spotcli.policies.prompter import Prompter
from spotcli.policies.transformers import TransformersPolicy
from spotcli.recipe import Recipe
from spotcli.records import Pair, key_hash

COUNTS = ("right", "wrong", "undecided", "failed", "cut", "empty", "tokens")
"""``right`` to ``failed`` add up to the problems; ``cut`` and ``empty`` are part of ``undecided``."""


@dataclass(frozen=True)
class Check:
    """Asks the policy one rank's part of the problems."""

    every: int
    """Optimiser steps."""
    problems: Sequence[Pair]
    """Of this rank."""
    policy: TransformersPolicy
    """Around the model that is being trained."""
    attention: str
    """Answers without packing need the model's own attention."""
    precision: Callable[[], AbstractContextManager[Any]]
    grader: str
    """Of rows that name none."""

    def due(self, step: int, steps: int) -> bool:
        """Whether to check after a step; the last one counts always."""
        return step % self.every == 0 or step == steps

    def counts(self) -> list[float]:
        """How this rank's answers turned out: ``COUNTS``, and the seconds that it took."""
        since = time.monotonic()
        requests = [Request((at,), problem.messages, seed=0) for at, problem in enumerate(self.problems)]
        with self._answering():
            answers = [
                each for group in self.policy.answers(requests, len(requests), lambda _: False) for each in group
            ]
        total: Counter[str] = Counter()
        for answer in answers:
            total.update(self._outcome(answer))
        return [*(float(total[name]) for name in COUNTS), time.monotonic() - since]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        model: Any = self.policy.model
        training, attention = model.training, model.config._attn_implementation
        model.eval()
        model.set_attn_implementation(self.attention)
        try:
            with self.precision():
                yield
        finally:
            model.set_attn_implementation(attention)
            model.train(training)

    def _outcome(self, answer: Answer | Failure) -> dict[str, int]:
        if isinstance(answer, Failure):
            return {"failed": 1}
        cut, empty = answer.finish_reason == "length", not answer.response.strip()
        problem = self.problems[answer.request.key[0]]
        completion = Completion(problem, answer.response, answer.finish_reason)
        grader = grader_of(problem.grader, self.grader)
        verdict = "undecided" if empty else grade_answer(completion, grader).verdict
        return {verdict: 1, "cut": int(cut), "empty": int(empty and not cut), "tokens": answer.tokens}


def row(sums: Sequence[float]) -> dict[str, float]:
    """What metrics.jsonl holds of a check: the sums over all ranks, tokens and seconds as means.

    Args:
        sums: ``COUNTS``, the seconds, and how many ranks there are.
    """
    *counts, seconds, ranks = sums
    found = dict(zip(COUNTS, counts, strict=True))
    answered = found["right"] + found["wrong"] + found["undecided"]
    found |= {"tokens": found["tokens"] / max(answered, 1), "seconds": seconds / ranks}
    return {f"check_{name}": value for name, value in found.items()}


def load_check(
    recipe: Recipe,
    data: Path,
    pairs: Sequence[EncodedPair],
    model: Any,
    *,
    attention: str,
    precision: Callable[[], AbstractContextManager[Any]],
    rank: int,
    ranks: int,
) -> Check:
    """The check of one rank.

    Args:
        recipe: the whole recipe; its train section asks for checks.
        data: the file of the pairs.
        pairs: those that are trained on.
        model: the policy in training, in peft's wrapping or bare.
        attention: the implementation that the model was loaded with.
        precision: the context of every forward pass.
        rank: this process, of ``ranks``.
        ranks: processes that share the problems out.

    Raises:
        UserError: a row names a grader that is not there.
    """
    section, template = recipe.train, recipe.sample.chat_template_kwargs | recipe.train.chat_template_kwargs
    name, thinking = recipe.model or "", recipe.sample.thinking
    lengths: dict[tuple[int, ...], int] = {}
    for pair in pairs:
        lengths[pair.prompt_ids] = max(lengths.get(pair.prompt_ids, 0), len(pair.chosen_ids))
    prompter = Prompter(name, template, thinking)
    # The same ones whatever the order of the file, and the same on every rank; those that can be graded first.
    rows = sorted(jsonl.read(data, Pair), key=lambda row: (row.answer is None, key_hash(row.id)))
    chosen: dict[tuple[int, ...], Pair] = {}
    for each in rows:
        ids = tuple(prompter.ids(each.messages))
        if ids in lengths:
            chosen.setdefault(ids, each)
        if len(chosen) == section.check_problems:
            break
    for kind in {each.grader for each in chosen.values()}:
        grader_of(kind, recipe.grader)
    # An answer that is twice as long as any correction goes nowhere.
    limit = min(recipe.sample.max_new_tokens, 2 * max(lengths[ids] for ids in chosen))
    policy = TransformersPolicy(
        model.get_base_model() if hasattr(model, "get_base_model") else model,
        prompter,
        Sampling(limit, temperature=0.0),
        batch_size=recipe.sample.batch_size,
    )
    mine = list(chosen.values())[rank::ranks]
    assert section.check_every is not None
    return Check(section.check_every, mine, policy, attention, precision, recipe.grader)
