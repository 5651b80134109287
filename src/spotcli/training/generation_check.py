"""Generation checks: does the policy still answer while it trains?

A loss does not show what the policy writes; it can fall while answers no longer end. So every ``train.check_every``
training steps, the policy answers some of its training problems greedily, and the answers are graded and counted.
The problems come from the training data: only those show whether the corrections are learned, and a test set that is
used during training would no longer be one. So a check does not measure what was gained; ``spot eval`` does.

A check does not change the weights: answers are greedy and draw no random numbers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from spotcli.errors import DataError
from spotcli.grading.answers import Completion, grade_answer
from spotcli.grading.kinds import grader_of
from spotcli.policies import NO_LIMIT, Answer, Failure, Request, Sampling
from spotcli.policies.prompter import Prompter
from spotcli.policies.transformers import TransformersPolicy
from spotcli.records import Pair, key_hash
from spotcli.training.plan import TrainPlan
from spotcli.training.rows import read_pairs
from spotcli.training.saving import bare_model
from spotcli.training.session import PreparedModel


@dataclass(frozen=True)
class CheckCounts:
    """The outcome of a generation check. ``right`` to ``failed`` add up to the problems."""

    right: float = 0.0
    wrong: float = 0.0
    undecided: float = 0.0
    failed: float = 0.0
    """Problems that were not asked, because the prompt fills the context."""
    truncated: float = 0.0
    """Answers that reached the token limit; part of ``undecided``."""
    empty: float = 0.0
    """Part of ``undecided``."""
    tokens: float = 0.0
    """Tokens of all answers."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def metrics(self, *, ranks: int) -> dict[str, float]:
        """The metrics for metrics.jsonl, with ``tokens`` per answer and ``seconds`` per process.

        Args:
            ranks: the number of processes that the counts were summed over.
        """
        answered = self.right + self.wrong + self.undecided
        means = {"tokens": self.tokens / max(answered, 1), "seconds": self.seconds / ranks}
        return {f"check_{name}": value for name, value in (self.as_dict() | means).items()}


@dataclass(frozen=True)
class Check:
    """Asks the policy one process's part of the problems."""

    every: int
    """Training steps between two checks."""
    problems: Sequence[Pair]
    """The problems of this process."""
    policy: TransformersPolicy
    """Wraps the model in training."""
    attention: str
    """The model's own attention; the one of training requires packed pairs."""
    precision: Callable[[], AbstractContextManager[Any]]
    grader: str
    """The grader of rows that name none."""

    def due(self, step: int, steps: int) -> bool:
        """Whether a check follows a training step; the last step always has one."""
        return step % self.every == 0 or step == steps

    def counts(self) -> CheckCounts:
        """Ask and grade the problems of this process."""
        started = time.monotonic()
        requests = [Request((index,), problem.messages, seed=0) for index, problem in enumerate(self.problems)]
        total: Counter[str] = Counter()
        with self._answering():
            for group in self.policy.answers(requests, len(requests), lambda _: False):
                for answer in group:
                    total.update(self.outcome(answer))
        return CheckCounts(**total, seconds=time.monotonic() - started)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """The model in evaluation mode, with its own attention."""
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

    def outcome(self, answer: Answer | Failure) -> dict[str, int]:
        """The counts of one answer."""
        if isinstance(answer, Failure):
            return {"failed": 1}
        truncated, empty = answer.finish_reason == "length", not answer.response.strip()
        problem = self.problems[answer.request.key[0]]
        completion = Completion(problem, answer.response, answer.finish_reason)
        grader = grader_of(problem.grader, self.grader)
        verdict = "undecided" if empty else grade_answer(completion, grader).verdict
        return {
            verdict: 1,
            "truncated": int(truncated),
            "empty": int(empty and not truncated),
            "tokens": answer.tokens,
        }


def load_check(plan: TrainPlan, model: Any, prepared: PreparedModel) -> Check | None:
    """The generation checks of this process; None if the recipe asks for none or weights are divided.

    Args:
        plan: the run.
        model: the policy in training, with or without peft's wrapper.
        prepared: the model as it was loaded.

    Raises:
        UserError: a row names an unknown grader.
    """
    section, sample = plan.section, plan.recipe.sample
    if section.check_every is None or plan.divided:
        return None
    template_kwargs = sample.chat_template_kwargs | section.chat_template_kwargs
    lengths: dict[tuple[int, ...], int] = {}
    for pair in plan.pairs:
        lengths[pair.prompt_ids] = max(lengths.get(pair.prompt_ids, 0), len(pair.chosen_ids))
    prompter = Prompter(plan.model, template_kwargs, sample.thinking)
    # The same problems for any order of the rows and on every process; those with a reference answer first.
    pairs = (pair for _, pair in read_pairs(plan.data_file, Pair, invalid=lambda error: None))
    rows = sorted(pairs, key=lambda row: (row.reference is None, key_hash(row.id)))
    problems: dict[tuple[int, ...], Pair] = {}
    for row in rows:
        try:
            ids = tuple(prompter.ids(row.messages))
        except DataError:
            continue  # the row is left out of training too
        if ids in lengths:
            problems.setdefault(ids, row)
        if len(problems) == section.check_problems:
            break
    if not problems:
        return None
    for grader in {problem.grader for problem in problems.values()}:
        grader_of(grader, plan.recipe.grader)
    policy = TransformersPolicy(
        bare_model(model),
        prompter,
        # An answer twice as long as any correction counts as truncated.
        Sampling(min(sample.max_new_tokens or NO_LIMIT, 2 * max(lengths[ids] for ids in problems)), temperature=0.0),
        batch_size=sample.batch_size,
    )
    return Check(
        every=section.check_every,
        problems=plan.ranks.part(list(problems.values())),
        policy=policy,
        attention=prepared.saved.attention,
        precision=plan.precision,
        grader=plan.recipe.grader,
    )
