"""Retention: how far a model has drifted from its base model on everyday requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spotcli.console import progress
from spotcli.evaluation.answers import expect_answer, model_path
from spotcli.evaluation.tasks import neutral
from spotcli.policies import Request, Sampling, answer_seed
from spotcli.policies.transformers import TransformersPolicy
from spotcli.recipe import Recipe


@dataclass(frozen=True)
class Drift:
    """Mean KL(base || model) in nats per token, over the tokens of the base model's answers."""

    mean: float
    tokens: int


def measure_drift(recipe: Recipe, *, model: str, base: str, folder: Path) -> Drift:
    """Measure the drift of a model on the base model's answers to neutral prompts.

    Raises:
        UserError: a model is not found, or cannot answer a prompt.
    """
    from spotcli.core.drift import token_kl

    # At temperature 1 without filters, answers are samples of the distribution that the KL is about.
    sampling = Sampling(neutral.MAX_NEW_TOKENS, temperature=1.0, top_p=1.0)
    base_policy, policy = (
        TransformersPolicy.load(model_path(name, folder), sampling, batch_size=recipe.eval.batch_size, dtype="float32")
        for name in (base, model)
    )
    requests = [
        Request((problem.id,), problem.messages, answer_seed(recipe.seed, problem.id, 0))
        for problem in neutral.problems()
    ]
    total, tokens = 0.0, 0
    with progress("answers") as display:
        bar = display.add_task("drift", total=len(requests), note="")
        for group in base_policy.answers(requests, len(requests), lambda request: False):
            for item in group:
                answer = expect_answer(item)
                total += float(token_kl(base_policy.logits(answer), policy.logits(answer)).sum())
                tokens += answer.tokens
                display.update(bar, advance=1, note=f"{total / tokens:.4f} nats/token")
    return Drift(total / tokens, tokens)
