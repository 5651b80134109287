"""The reference: log-probabilities of both answers of each pair under the starting policy, computed once.

They are computed before the optimiser exists, by the forward pass that the policy uses too (layout, precision, output
layer), so that the first rewards are 0 up to rounding. A JSONL file caches them, one pair per line, under a key of
everything they depend on: weights, precision, layout and the pair's token ids. Shuffling, added pairs, another
objective or another learning rate keep the cached rows valid. A row has the log-probability of each kept token too if
the run has a tether on kept tokens (``train.kept_kl``); such rows have keys of their own.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from spotcli.appender import Appender
from spotcli.core.forward import token_marks
from spotcli.core.forward.encoding import EncodedPair
from spotcli.training.finite import not_finite_start
from spotcli.training.plan import TrainPlan

VERSION = "3"
"""Version of the computation; part of each key, so that a change invalidates the cache."""

SIMILARITY = ("ches", "ches_normalized")
"""Fields of a cached row with the similarity of its answers."""

SAVE_EVERY = 64
"""Pairs between two writes: a kill loses at most this many."""


class PairLogps(NamedTuple):
    """Log-probabilities of one pair, in nats; those of y- are 0 in a row without y-."""

    chosen: float
    """logp(y+)."""
    rejected: float
    """logp(y-)."""
    chosen_edited: float
    """The part of logp(y+) on edited tokens."""
    rejected_edited: float
    """The part of logp(y-) on edited tokens."""
    rejected_first_error: float
    """The part of logp(y-) on its first error (``token_marks.errors``)."""
    kept_tokens: bytes = b""
    """Log-probability of each kept token of y+ as little-endian float32; empty without a tether on kept tokens."""

    @property
    def sums(self) -> tuple[float, ...]:
        """All values except those of single tokens."""
        return self[:-1]

    def error(self, *, first: bool) -> float:
        """The part of logp(y-) on its errors (``token_marks.errors``)."""
        # Without an edited token, whose sum is 0, the first error is the only one.
        return self.rejected_first_error if first or not self.rejected_edited else self.rejected_edited


*_SUMS, _TOKENS = PairLogps._fields


class ReferenceRow(NamedTuple):
    """What the starting policy says about one pair."""

    logps: PairLogps
    ches: float | None = None
    """``core.similarity``; None without ``train.similarity``, and for rows without y-."""
    ches_normalized: float | None = None


def reference_logps(
    plan: TrainPlan, model: Any, advance: Callable[[int], None], pairs: Sequence[EncodedPair] | None = None
) -> list[ReferenceRow]:
    """The reference of each pair, cached in reference.jsonl; the processes share the work.

    Args:
        plan: the run.
        model: the starting policy, prepared by ``core.forward.logps.install``.
        advance: called with the number of pairs that are done.
        pairs: by default those of the run.
    """
    pairs, ranks, cache = plan.pairs if pairs is None else pairs, plan.ranks, plan.folder / "reference.jsonl"
    basis = _basis(plan, next(model.parameters()).device.type)
    keys = [_key(pair, basis) for pair in pairs]
    known = _from_all_ranks(_cached(cache, plan) if ranks.is_main else {}, ranks.world_size)[0]
    unknown = {
        key: index
        for index, (key, pair) in enumerate(zip(keys, pairs, strict=True))
        if key not in known or (plan.tethers_kept and len(known[key].logps.kept_tokens) != _kept_bytes(pair))
    }
    missing = sorted(unknown.values(), key=lambda index: -pairs[index].longest)
    advance(len(pairs) - len(missing))
    if missing:
        with _whole_weights(model):
            part = {index: keys[index] for index in ranks.part(missing)}
            computed = _compute(plan, model, pairs, part, cache, advance)
        for others in _from_all_ranks(computed, ranks.world_size):
            known |= others
        if ranks.is_main and ranks.world_size > 1:
            with Appender(cache) as file:
                written = (_known(file.rows(), plan).keys() - unknown.keys()) | computed.keys()
                file.append([_row(key, row, plan) for key, row in known.items() if key not in written])
    return [known[key] for key in keys]


def _compute(
    plan: TrainPlan,
    model: Any,
    pairs: Sequence[EncodedPair],
    keys: Mapping[int, str],
    cache: Path,
    advance: Callable[[int], None],
) -> dict[str, ReferenceRow]:
    """The reference of some pairs; the main process appends them to the cache.

    Args:
        plan: the run.
        model: the starting policy.
        pairs: all of them.
        keys: of each pair to compute, by its index; the longest pair first.
        cache: the file.
        advance: called with the number of pairs that are done.

    Raises:
        UserError: a log-probability is not finite.
    """
    from spotcli.core.forward.batches import micro_batches, sizes

    computed: dict[str, ReferenceRow] = {}
    unsaved: list[dict[str, Any]] = []
    remaining = len(keys)
    with Appender(cache) if plan.ranks.is_main else nullcontext() as file:
        for members in micro_batches(list(keys), sizes(pairs, share=plan.share), plan.layout):
            remaining -= len(members)
            rows = score(plan, model, [pairs[index] for index in members])
            if not all(math.isfinite(value) for row in rows for value in row.logps.sums):
                raise not_finite_start(model, plan.model, "a log-probability")
            scored = {keys[index]: row for index, row in zip(members, rows, strict=True)}
            computed |= scored
            unsaved += [_row(key, row, plan) for key, row in scored.items()]
            advance(len(members))
            if file is not None and (len(unsaved) >= SAVE_EVERY or not remaining):
                file.append(unsaved)
                unsaved.clear()
    return computed


def score(plan: TrainPlan, model: Any, pairs: Sequence[EncodedPair]) -> list[ReferenceRow]:
    """The log-probabilities of one micro-batch, and with ``train.similarity`` the similarity of the answers."""
    import torch

    from spotcli.core.forward.packing import pack

    batch = pack(pairs, share=plan.share).to(next(model.parameters()).device)
    hidden: list[Any] = []
    with torch.no_grad(), plan.precision(), _scored_states(model, hidden, on=plan.section.similarity):
        logps_N = model(**batch.model_inputs())
    errors = [mark for pair in pairs for mark in token_marks.errors(pair, first=True)]
    error_B = batch.error_logps(logps_N, torch.tensor(errors, dtype=logps_N.dtype, device=logps_N.device))
    sums = (*batch.sequence_logps(logps_N), *batch.edited_logps(logps_N), error_B)
    logps = [PairLogps(*values) for values in zip(*(sum_B.tolist() for sum_B in sums), strict=True)]
    if plan.tethers_kept:
        tokens = batch.kept_token_logps(logps_N).cpu().numpy().astype("<f4").tobytes()
        bounds = [0, *accumulate(map(_kept_bytes, pairs))]
        parts = [tokens[low:high] for low, high in pairwise(bounds)]
        logps = [values._replace(kept_tokens=part) for values, part in zip(logps, parts, strict=True)]
    if not hidden:
        return [ReferenceRow(values) for values in logps]
    from spotcli.core.similarity import ches

    found = ches(hidden[0], batch.pair_N, batch.chosen_N, batch.rejected_N, batch.pairs)
    similarities = zip(found.ches_B.tolist(), found.normalized_B.tolist(), strict=True)
    return [
        ReferenceRow(values, *(similarity if pair.rejected_ids else (None, None)))
        for pair, values, similarity in zip(pairs, logps, similarities, strict=True)
    ]


@contextmanager
def _scored_states(model: Any, states: list[Any], *, on: bool) -> Iterator[None]:
    """Append the last hidden states at the scored positions, which the output layer gets, to ``states``."""
    head = model.get_output_embeddings()
    head = head.get_base_layer() if hasattr(head, "get_base_layer") else head
    hook = head.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0])) if on else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def _kept_bytes(pair: EncodedPair) -> int:
    """The length of ``PairLogps.kept_tokens`` of a pair."""
    return 4 * pair.edited()[0].count(False)


def _basis(plan: TrainPlan, device: str) -> str:
    """What all log-probabilities of a run depend on, besides the pair: weights, precision, device, layout."""
    basis = f"{plan.weights_digest}|{plan.precision}|{device}|{'shared' if plan.share else 'plain'}"
    if plan.section.compile_norms:
        basis += "|compiled"
    if plan.section.quantize:
        basis = f"{basis}|{plan.section.quantize}"
    return f"{basis}|kept tokens" if plan.tethers_kept else basis


def _key(pair: EncodedPair, basis: str) -> str:
    """The cache key of a pair."""
    text = f"{VERSION}|{basis}|{pair.prompt_ids}|{pair.chosen_ids}|{pair.rejected_ids}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cached(cache: Path, plan: TrainPlan) -> dict[str, ReferenceRow]:
    """The cached values. A damaged row is computed again.

    Raises:
        DataError: a line is not a JSON object.
    """
    with Appender(cache) as file:
        return _known(file.rows(), plan)


def _known(rows: Iterable[Mapping[str, Any]], plan: TrainPlan) -> dict[str, ReferenceRow]:
    """The values of whole rows, by their keys; with ``train.similarity``, of rows that have it."""
    values: dict[str, ReferenceRow] = {}
    for row in rows:
        key, logps = row.get("key"), [row.get(name) for name in _SUMS]
        similarity = [row.get(name) for name in SIMILARITY]
        # NaN, which earlier versions wrote, is read as null.
        whole = isinstance(key, str) and all(isinstance(value, float) for value in logps)
        whole = whole and all(value is None or isinstance(value, float) for value in similarity)
        if whole and (not plan.section.similarity or {*SIMILARITY} <= row.keys()):
            values[str(key)] = ReferenceRow(PairLogps._make((*logps, _decoded(row.get(_TOKENS)))), *similarity)
    return values


def _decoded(text: Any) -> bytes:
    """The bytes of ``PairLogps.kept_tokens`` from a row; none if the row is damaged or has none."""
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _row(key: str, row: ReferenceRow, plan: TrainPlan) -> dict[str, Any]:
    values: dict[str, Any] = {"key": key, **dict(zip(_SUMS, row.logps.sums, strict=True))}
    if row.logps.kept_tokens:
        values[_TOKENS] = b64encode(row.logps.kept_tokens).decode()
    return values | ({name: getattr(row, name) for name in SIMILARITY} if plan.section.similarity else {})


def _whole_weights(model: Any) -> AbstractContextManager[Any]:
    """A context in which each process has all weights; ZeRO-3 divides them while loading."""
    weights = list(model.parameters())
    if not any(hasattr(weight, "ds_id") for weight in weights):
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(weights)  # type: ignore[no-any-return]


def _from_all_ranks(value: dict[str, ReferenceRow], world_size: int) -> list[dict[str, ReferenceRow]]:
    """The values of all processes, by rank."""
    if world_size == 1:
        return [value]
    import torch.distributed as dist

    if not dist.is_initialized():
        from accelerate import PartialState

        PartialState()
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, value)
    return gathered
