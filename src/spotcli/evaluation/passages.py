"""The answers of the base model on which drift is measured.

neutral     answers to everyday requests that nothing trains on, sampled at temperature 1
own right   the base model's right answers to the trained tasks: what training should change least
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from spotcli.evaluation.drift import PassageKind
from spotcli.evaluation.tasks import neutral
from spotcli.policies import Request, Sampling, answer_seed
from spotcli.policies.prompter import Prompter
from spotcli.recipe import Recipe
from spotcli.records import Problem, Score

MAX_TOKENS = 4096
"""Tokens at the start of an answer that count; they bound the size of the hidden states on disk (34 MB per answer for
Qwen3-8B)."""

SAMPLING = Sampling(neutral.MAX_NEW_TOKENS, temperature=1.0, top_p=1.0)
"""At temperature 1 without filters, answers are samples of the distribution that the KL divergence is about."""


@dataclass(frozen=True)
class Passage:
    """A prompt, and the base model's answer to it or how that is sampled."""

    kind: PassageKind
    task: str | None
    """None for neutral prompts."""
    request: Request
    """With key (id, trial, task)."""
    row: Score | None = None
    """The graded answer; None if the answer is sampled."""

    @property
    def id(self) -> str:
        return str(self.request.key[0])

    @property
    def trial(self) -> int:
        return self.request.trial

    def key(self, *models: str) -> str:
        """A digest of the answer, and of what ``models`` says about the models."""
        how = [self.row.response, self.row.finish_reason] if self.row else [self.request.seed, repr(SAMPLING)]
        asked = [self.request.messages, self.request.tools, MAX_TOKENS]
        text = json.dumps([self.kind, self.task, self.id, self.trial, asked, how, models])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def answer_ids(self, prompter: Prompter, prompt: list[int]) -> list[int]:
        """Token ids of the graded answer: those that were kept, else the text's, with the end of a finished turn."""
        assert self.row is not None
        ids = _kept_ids(self.row, prompter)
        if ids is None:
            ids = prompter.tokenizer(self.row.response, add_special_tokens=False)["input_ids"]
            if self.row.finish_reason == "stop":
                ids = [*ids, *prompter.end.ids]
        return ids[: max(1, prompter.room(prompt, MAX_TOKENS))]


def _kept_ids(row: Score, prompter: Prompter) -> list[int] | None:
    """The row's ``response_ids``, if they are tokens of its answer."""
    ids = (row.model_extra or {}).get("response_ids")
    size = len(prompter.tokenizer)
    if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < size for id in ids):
        return None
    text = prompter.tokenizer.decode(ids, skip_special_tokens=True)
    return ids if ids and text == row.response else None


def passages(recipe: Recipe, rows: Iterable[Score], trained: Collection[str]) -> list[Passage]:
    """The neutral prompts, and right answers to the trained tasks.

    Of the problems with a right answer, ``eval.drift_answers`` are chosen by the recipe's seed, with one of their right
    answers each.

    Args:
        recipe: the whole recipe.
        rows: graded answers of the base model.
        trained: names of the trained tasks.
    """
    by_problem: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.key):
        if row.verdict == "right" and row.task in trained and row.response:
            by_problem[row.task, row.id].append(row)
    generator = random.Random(f"{recipe.seed}:drift")
    chosen = generator.sample(list(by_problem), min(recipe.eval.drift_answers, len(by_problem)))
    right = [generator.choice(by_problem[key]) for key in chosen]
    return [
        *(
            Passage("neutral", None, _request(problem, 0, None, answer_seed(recipe.seed, problem.id, 0)))
            for problem in neutral.problems()
        ),
        *(Passage("own right", row.task, _request(row, row.trial, row.task), row) for row in right),
    ]


def _request(problem: Problem, trial: int, task: str | None, seed: int = 0) -> Request:
    return Request((problem.id, trial, task), problem.messages, seed, trial, problem.tools)
