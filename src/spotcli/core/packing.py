"""Pairs as tensors: one row in which prompt and common beginning stand once, or two padded rows a pair.

Shared layout, one row without padding, for pairs with prefix P (prompt and the common beginning of the answers), chosen
tail A and rejected tail B:

    tokens      C [P A B][P A B] ...
    positions    0 ..c-1, then for each pair c ..c+p+a-1, and c+p ..c+p+b-1 for B: B continues P as if A were not there
    spans       (start, p, a, b) of each pair, which ``core.attention`` needs to keep pairs, and A and B, apart

C is what all prompts of the row begin with (a system prompt, worked examples): it stands once, and P is the rest.

Plain layout: each answer is a right-padded row of its own, for any architecture.

Both say which positions to score and to which answers a scored token belongs, so that what follows does not know which
layout it was. A shared response token is scored once and counts for both answers.

Shapes, as suffixes of names: R rows, L tokens of a row, N scored positions, B pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import torch
from torch import Tensor

from spotcli.core.encoding import EncodedPair

Span = tuple[int, int, int, int]
"""Start in the row, tokens of the prefix, of the chosen tail, of the rejected tail."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch of pairs."""

    ids_RL: Tensor
    positions_RL: Tensor
    rows_N: Tensor
    """Scored positions in the flattened [R * L] input: each predicts the token after it."""
    targets_N: Tensor
    """The token that follows each scored position."""
    pair_N: Tensor
    """Which pair a scored token belongs to."""
    chosen_N: Tensor
    """Whether it counts for the chosen answer."""
    rejected_N: Tensor
    """Whether it counts for the rejected answer; both for shared tokens."""
    pairs: int
    attention_mask_RL: Tensor | None = None
    """Of the plain layout."""
    common: int = 0
    """Tokens that all prompts begin with, at the row's start; of the shared layout."""
    spans: tuple[Span, ...] | None = None
    """Of the shared layout; Python numbers, since a tensor on a GPU would have to be waited for in every layer."""

    def model_inputs(self) -> dict[str, Any]:
        """Keyword arguments of a model that ``core.logps.install`` has prepared."""
        inputs: dict[str, Any] = {
            "input_ids": self.ids_RL,
            "position_ids": self.positions_RL,
            "rows_N": self.rows_N,
            "targets_N": self.targets_N,
        }
        if self.attention_mask_RL is not None:
            inputs["attention_mask"] = self.attention_mask_RL
        if self.spans is not None:
            inputs["pair_spans"] = self.spans
            inputs["pair_common"] = self.common
        return inputs

    def sequence_logps(self, logps_N: Tensor) -> tuple[Tensor, Tensor]:
        """logp(y+) and logp(y-), each [B]: sums over response tokens."""
        zeros_B = logps_N.new_zeros(self.pairs)
        chosen_B = zeros_B.index_add(0, self.pair_N, logps_N * self.chosen_N)
        rejected_B = zeros_B.index_add(0, self.pair_N, logps_N * self.rejected_N)
        return chosen_B, rejected_B

    def chosen_token_logps(self, logps_N: Tensor) -> Tensor:
        """The log-probabilities of the chosen answers' tokens, [T]."""
        return logps_N[self.chosen_N]

    def to(self, device: Any) -> Batch:
        """The batch with its tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Batch(**moved)


def pack(pairs: Sequence[EncodedPair], *, share: bool, rejected: bool = True, pad_id: int = 0) -> Batch:
    """Lay out pairs as tensors.

    Args:
        pairs: at least one.
        share: the shared layout, else the plain one.
        rejected: run the rejected answers too.
        pad_id: any token id, for the padding of the plain layout.
    """
    return _pack_shared(pairs, rejected) if share else _pack_plain(pairs, rejected, pad_id)


def _pack_shared(pairs: Sequence[EncodedPair], rejected: bool) -> Batch:
    common = _common([pair.prompt_ids for pair in pairs])
    ids: list[int] = [*pairs[0].prompt_ids[:common]]
    positions: list[int] = [*range(common)]
    scored = _Scored()
    spans: list[Span] = []
    for number, pair in enumerate(pairs):
        start, prompt = len(ids), len(pair.prompt_ids) - common
        shared = pair.shared if rejected else len(pair.chosen_ids)
        prefix = prompt + shared
        chosen, wrong = pair.chosen_ids[shared:], pair.rejected_ids[shared:] if rejected else ()
        ids += [*pair.prompt_ids[common:], *pair.chosen_ids, *wrong]
        positions += [*range(common, common + prefix + len(chosen))]
        positions += [*range(common + prefix, common + prefix + len(wrong))]
        spans.append((start, prefix, len(chosen), len(wrong)))
        # The prefix's last position predicts the first token of both tails, so it is scored twice and stored once.
        last, tail = start + prefix - 1, start + prefix + len(chosen)
        scored.add(number, range(start + prompt - 1, last), pair.chosen_ids[:shared], True, rejected)
        scored.add(number, range(last, last + len(chosen)), chosen, True, False)
        scored.add(number, [last, *range(tail, tail + len(wrong) - 1)][: len(wrong)], wrong, False, True)
    return Batch(
        ids_RL=torch.tensor([ids]), positions_RL=torch.tensor([positions]), pairs=len(pairs), common=common,
        spans=tuple(spans), **scored.tensors(),
    )  # fmt: skip


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with; each keeps at least its last, which predicts the answer's first token."""
    if len(prompts) == 1:
        return 0
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def row_tokens(pairs: Sequence[EncodedPair], *, rejected: bool = True) -> int:
    """Tokens of the shared layout's row."""
    common = _common([pair.prompt_ids for pair in pairs])
    each = (pair.shared_tokens if rejected else len(pair.prompt_ids) + len(pair.chosen_ids) for pair in pairs)
    return sum(each) - common * (len(pairs) - 1)


def _pack_plain(pairs: Sequence[EncodedPair], rejected: bool, pad_id: int) -> Batch:
    answers = [(number, pair.prompt_ids, pair.chosen_ids, True) for number, pair in enumerate(pairs)]
    if rejected:
        answers += [(number, pair.prompt_ids, pair.rejected_ids, False) for number, pair in enumerate(pairs)]
    length = max(len(prompt) + len(answer) for _, prompt, answer, _ in answers)
    ids_RL = torch.full((len(answers), length), pad_id)
    mask_RL = torch.zeros_like(ids_RL)
    scored = _Scored()
    for row, (number, prompt, answer, chosen) in enumerate(answers):
        end = len(prompt) + len(answer)
        ids_RL[row, :end] = torch.tensor([*prompt, *answer])
        mask_RL[row, :end] = 1
        first = row * length + len(prompt) - 1
        scored.add(number, range(first, first + len(answer)), answer, chosen, not chosen)
    positions_RL = torch.arange(length).expand(len(answers), length).contiguous()
    return Batch(
        ids_RL=ids_RL, positions_RL=positions_RL, pairs=len(pairs), attention_mask_RL=mask_RL, **scored.tensors()
    )


class _Scored:
    """Scored positions as they are met."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.targets: list[int] = []
        self.pair: list[int] = []
        self.chosen: list[bool] = []
        self.rejected: list[bool] = []

    def add(self, pair: int, rows: Sequence[int], targets: Sequence[int], chosen: bool, rejected: bool) -> None:
        self.rows += rows
        self.targets += targets
        self.pair += [pair] * len(targets)
        self.chosen += [chosen] * len(targets)
        self.rejected += [rejected] * len(targets)

    def tensors(self) -> dict[str, Any]:
        return {
            "rows_N": torch.tensor(self.rows),
            "targets_N": torch.tensor(self.targets),
            "pair_N": torch.tensor(self.pair),
            "chosen_N": torch.tensor(self.chosen),
            "rejected_N": torch.tensor(self.rejected),
        }


@dataclass(frozen=True)
class MicroBatch:
    """Which pairs one rank takes in one forward pass."""

    members: tuple[int, ...]
    """Indices of pairs."""
    idle: bool = False
    """The step has fewer pairs than ranks: this rank runs a pair that does not count, to keep in step with the rest."""


def plan_epoch(
    sizes: Sequence[int], *, micro: int, accumulate: int, ranks: int, seed: int, epoch: int
) -> Iterator[tuple[MicroBatch, ...]]:
    """The micro-batches of an epoch, in order; of each, one for every rank.

    Every pair is taken exactly once. Pairs are shuffled by ``seed`` and ``epoch`` alone and cut into steps of
    ``micro * accumulate * ranks``, so the same pairs meet in a step however it is laid out. Inside a step, where order
    does not matter, pairs of like size are put together: padding, and waiting for the slowest rank, become small. The
    last step of an epoch may be smaller; it is spread evenly over as few micro-batches as hold it.

    Args:
        sizes: tokens of each pair.
        micro: pairs of a micro-batch.
        accumulate: micro-batches of a step, on each rank.
        ranks: processes that train together.
        seed: of the shuffle.
        epoch: from 0.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(sizes), generator=generator).tolist()
    step = micro * accumulate * ranks
    for start in range(0, len(order), step):
        members = sorted(order[start : start + step], key=lambda index: (-sizes[index], index))
        rounds = -(-len(members) // (micro * ranks))
        slots = rounds * ranks
        bounds = [round(slot * len(members) / slots) for slot in range(slots + 1)]
        batches = [
            MicroBatch(tuple(members[low:high])) if high > low else MicroBatch((members[0],), idle=True)
            for low, high in pairwise(bounds)
        ]
        for first in range(0, slots, ranks):
            yield tuple(batches[first : first + ranks])


def rounds_in_epoch(pairs: int, *, micro: int, ranks: int) -> int:
    """How many micro-batches each rank runs in an epoch."""
    return -(-pairs // (micro * ranks))
