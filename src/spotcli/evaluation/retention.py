"""Retention: how far a model has drifted from its base model, on answers that training should not change.

    answers of the base model -> its hidden states on disk -> KL per token under the model -> one row per answer

Only one model is in memory at a time, with the head of the other one. Every row of ``scores/MODEL.drift.jsonl`` is
keyed by the weights of both models and by the answer, so that a run that was killed goes on, and other weights are
measured anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.console import progress, warn
from spotcli.core.stats.per_token import mean_per_token
from spotcli.errors import UserError
from spotcli.evaluation.answers import expect_answer, model_path, scores_path, weights_of
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.drift import CHANGE, Drift, PassageKind, WorstPrompt
from spotcli.evaluation.hidden_states import HiddenStates, answer_states, checked_head, free_memory, number_format
from spotcli.evaluation.passages import SAMPLING, Passage, passages
from spotcli.locks import Lock
from spotcli.outputs import set_aside
from spotcli.policies.models import Dtype, load_tokenizer
from spotcli.policies.prompter import Thinking
from spotcli.policies.transformers import TransformersPolicy
from spotcli.recipe import Recipe
from spotcli.records import Row

if TYPE_CHECKING:
    import torch

__all__ = ["Drift", "DriftRow", "measure_drift", "saved_drift", "summarise"]

WORST = 5
"""Prompts with the largest divergence that are listed, of each kind."""
EXCERPT = 100
"""Characters of a prompt, and of the answer around its most changed token, that are kept."""


class DriftRow(Row):
    """The divergence on one answer, as a line of ``scores/MODEL.drift.jsonl``."""

    kind: ClassVar[str] = "divergences"
    key: str
    """A digest of both models' weights and of the answer."""
    part: PassageKind
    task: str | None
    id: str
    trial: int
    tokens: int
    kl: float
    """Sum over the tokens, in nats."""
    peak: float
    """The largest KL divergence at one position, in nats."""
    passage: str
    """The answer around that token."""
    excerpt: str
    """The end of the prompt."""


@dataclass(frozen=True)
class _Measurement:
    """Both models, and what their numbers depend on."""

    base: str
    model: str
    base_weights: str
    weights: str
    dtype: Dtype
    template_kwargs: Mapping[str, Any]
    thinking: Thinking
    batch_size: int

    @classmethod
    def of(cls, recipe: Recipe, base: str, model: str) -> Self:
        """What is measured with these folders or hub ids of models."""
        settings = recipe.eval
        return cls(
            base=base,
            model=model,
            base_weights=weights_of(base),
            weights=weights_of(model),
            dtype=number_format(settings.drift_dtype),
            template_kwargs=settings.chat_template_kwargs,
            thinking=settings.thinking,
            batch_size=settings.batch_size,
        )

    def base_key(self, passage: Passage) -> str:
        """Identifies the base model's states on an answer."""
        return passage.key(self.base_weights, self.dtype, self.thinking, repr(sorted(self.template_kwargs.items())))

    def key(self, passage: Passage) -> str:
        """Identifies the divergence on an answer."""
        return passage.key(self.base_key(passage), self.weights)

    @property
    def head_key(self) -> str:
        return f"head-{self.base_weights[:24]}-{self.dtype}"


def measure_drift(
    recipe: Recipe,
    model: str,
    base: ModelRows,
    trained: Collection[str],
    *,
    folder: Path,
    fresh: bool = False,
) -> Drift | None:
    """Measure the drift of a model on answers of its base model.

    Args:
        recipe: the whole recipe.
        model: a folder, a hub id or a built-in model, of the same vocabulary as the base model.
        base: the base model and its graded answers.
        trained: the tasks whose right answers count.
        folder: for relative paths.
        fresh: rename earlier results and measure everything again.

    Returns:
        None, with a warning, if the models have different vocabularies.

    Raises:
        UserError: a model is not found, cannot answer a prompt, or has an output layer that is not supported.
    """
    measurement = _Measurement.of(recipe, model_path(base.model, folder), model_path(model, folder))
    wanted = passages(recipe, base.rows, trained)
    path = _journal_path(recipe, model, folder)
    if fresh and path.parent.is_dir():
        with Lock(path):
            set_aside(path)
    with Appender(path) as journal:
        rows = {row.key: row for row in jsonl.read(path, DriftRow)}
        missing = [passage for passage in wanted if measurement.key(passage) not in rows]
        states = HiddenStates(path.with_suffix(".states"))
        if missing:
            if not _same_tokens(measurement.base, measurement.model):
                warn("drift is not measured: the models have different vocabularies")
                return None
            _keep_base_states(measurement, wanted, missing, states)
            for row in _divergences(measurement, missing, states):
                journal.append([row])
                rows[row.key] = row
        states.remove()  # also what a run left that was killed after the last row
    return summarise([rows[measurement.key(passage)] for passage in wanted], measurement.dtype)


def saved_drift(recipe: Recipe, model: str, base: ModelRows, trained: Collection[str], *, folder: Path) -> Drift | None:
    """The drift of an earlier measurement, without loading a model; None if these weights were not measured.

    Another grader may count other answers as right; of those, only the measured ones are part of the result.
    """
    path = _journal_path(recipe, model, folder)
    if not path.exists():
        return None
    try:
        measurement = _Measurement.of(recipe, model_path(base.model, folder), model_path(model, folder))
    except UserError:
        return None  # the weights were moved, so that nothing shows which ones were measured
    rows = {row.key: row for row in jsonl.read(path, DriftRow)}
    keys = {measurement.key(passage): passage.kind for passage in passages(recipe, base.rows, trained)}
    if any(kind == "neutral" and key not in rows for key, kind in keys.items()):
        return None
    return summarise([rows[key] for key in keys if key in rows], measurement.dtype)


def _journal_path(recipe: Recipe, model: str, folder: Path) -> Path:
    return scores_path(recipe, model, folder).with_suffix(".drift.jsonl")


def _same_tokens(base: str, model: str) -> bool:
    """Whether every token of the base model has the same id in the other model."""
    if base == model:
        return True
    ids = load_tokenizer(model).get_vocab()
    return all(ids.get(token) == id for token, id in load_tokenizer(base).get_vocab().items())


@contextmanager
def _loaded(measurement: _Measurement, model: str) -> Iterator[TransformersPolicy]:
    """Load a model, and free its memory at the end."""
    policy = TransformersPolicy.load(
        model,
        SAMPLING,
        batch_size=measurement.batch_size,
        dtype=measurement.dtype,
        chat_template_kwargs=dict(measurement.template_kwargs),
        thinking=measurement.thinking,
    )
    try:
        yield policy
    finally:
        del policy.model
        free_memory()


def _keep_base_states(
    measurement: _Measurement, wanted: Sequence[Passage], missing: Sequence[Passage], states: HiddenStates
) -> None:
    """Write the base model's head, and its answers with their hidden states."""
    keys = {passage.request.key: measurement.base_key(passage) for passage in missing}
    needed = [passage for passage in missing if keys[passage.request.key] not in states]
    if not needed and measurement.head_key in states:
        return
    open_keys = {keys[passage.request.key] for passage in needed}
    with _loaded(measurement, measurement.base) as policy, progress("answers") as display:
        bar = display.add_task("drift, base model", total=len(needed), note="")
        head = checked_head(policy, policy.prompter.prompt(missing[0].request))
        states.write_head(measurement.head_key, head)
        for passage in needed:
            if passage.row is not None:
                prompt = policy.prompter.prompt(passage.request)
                ids = passage.answer_ids(policy.prompter, prompt)
                states.write(keys[passage.request.key], ids, answer_states(policy, prompt, ids))
                display.update(bar, advance=1)
        # All requests, because a sampled answer depends on those in its batch.
        sampled = [passage.request for passage in wanted if passage.row is None]
        for group in policy.answers(sampled, len(needed), lambda request: keys.get(request.key, "") not in open_keys):
            for answer in map(expect_answer, group):
                assert answer.token_ids is not None
                prompt = policy.prompter.prompt(answer.request)
                states.write(
                    keys[answer.request.key], answer.token_ids, answer_states(policy, prompt, answer.token_ids)
                )
                display.update(bar, advance=1)


def _divergences(measurement: _Measurement, missing: Sequence[Passage], states: HiddenStates) -> Iterator[DriftRow]:
    """Measure the divergence on each answer."""
    from spotcli.core.drift import hidden_kl

    total = tokens = 0.0
    with _loaded(measurement, measurement.model) as policy, progress("answers") as display:
        bar = display.add_task(f"drift, {Path(measurement.model).name}", total=len(missing), note="")
        device = policy.model.device
        head = checked_head(policy, policy.prompter.prompt(missing[0].request))
        base_head = states.read_head(measurement.head_key, device)
        for passage in missing:
            ids, base_NH = states.read(measurement.base_key(passage))
            own_NH = answer_states(policy, policy.prompter.prompt(passage.request), ids)
            kl_N = hidden_kl((base_head, base_NH.to(device)), (head, own_NH))
            yield _row(measurement.key(passage), passage, kl_N, policy.prompter.tokenizer, ids)
            total, tokens = total + float(kl_N.sum()), tokens + len(ids)
            display.update(bar, advance=1, note=f"{total / tokens:.4f} nats/token")


def _row(key: str, passage: Passage, kl_N: torch.Tensor, tokenizer: Any, ids: Sequence[int]) -> DriftRow:
    place = int(kl_N.argmax())
    before = str(tokenizer.decode(ids[max(0, place - EXCERPT // 4) : place]))
    after = str(tokenizer.decode(ids[place : place + EXCERPT // 4]))
    return DriftRow(
        key=key,
        part=passage.kind,
        task=passage.task,
        id=passage.id,
        trial=passage.trial,
        tokens=len(ids),
        kl=float(kl_N.double().sum()),
        peak=float(kl_N[place]),
        passage=f"{before[-EXCERPT // 2 :]}{CHANGE}{after[: EXCERPT // 2]}",
        excerpt=passage.request.messages[-1]["content"][-EXCERPT:],
    )


def summarise(rows: Sequence[DriftRow], dtype: Dtype) -> Drift:
    """The drift out of the divergences on all answers, which were computed in a number format."""
    by_kind = {kind: [row for row in rows if row.part == kind] for kind in ("neutral", "own right")}
    parts = {
        kind: mean_per_token([row.kl for row in part], [row.tokens for row in part])
        for kind, part in by_kind.items()
        if part
    }
    worst = [
        WorstPrompt(
            row.part, row.task, row.id, row.trial, row.kl / row.tokens, row.tokens, row.peak, row.passage, row.excerpt
        )
        for part in by_kind.values()
        for row in sorted(part, key=lambda row: -row.kl / row.tokens)[:WORST]
    ]
    neutral = parts["neutral"]
    return Drift(
        mean=neutral.mean,
        tokens=neutral.tokens,
        neutral=neutral,
        own_right=parts.get("own right"),
        worst=sorted(worst, key=lambda prompt: -prompt.kl),
        dtype=dtype,
    )
