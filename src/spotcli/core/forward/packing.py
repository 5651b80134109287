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

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from spotcli.core.costs import Work
from spotcli.core.forward.encoding import EncodedPair

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
    edited_N: Tensor
    """Whether the other answer lacks it; the rest was kept."""
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

    def span_sums(self, values_N: Tensor) -> Tensor:
        """Sums over the kept tokens of y+, its edited ones, and the edited ones of y-, [3]."""
        spans = (self.chosen_N & ~self.edited_N, self.chosen_N & self.edited_N, self.rejected_N & self.edited_N)
        return torch.stack([(values_N * span_N).sum() for span_N in spans])

    def edited_logps(self, logps_N: Tensor) -> tuple[Tensor, Tensor]:
        """As ``sequence_logps``, over the edited tokens alone."""
        return self.sequence_logps(logps_N * self.edited_N)

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
        new, old = pair.edited()
        ids += [*pair.prompt_ids[common:], *pair.chosen_ids, *wrong]
        positions += [*range(common, common + prefix + len(chosen))]
        positions += [*range(common + prefix, common + prefix + len(wrong))]
        spans.append((start, prefix, len(chosen), len(wrong)))
        # The prefix's last position predicts the first token of both tails, so it is scored twice and stored once.
        last, tail = start + prefix - 1, start + prefix + len(chosen)
        scored.add(number, range(start + prompt - 1, last), pair.chosen_ids[:shared], new[:shared], True, rejected)
        scored.add(number, range(last, last + len(chosen)), chosen, new[shared:], True, False)
        rows = [last, *range(tail, tail + len(wrong) - 1)][: len(wrong)]
        scored.add(number, rows, wrong, old[shared:] if rejected else [], False, True)
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


def row_work(pairs: Sequence[EncodedPair], *, share: bool, rejected: bool = True) -> Work:
    """What a forward pass over the pairs runs, without laying them out."""
    prompts = [len(pair.prompt_ids) for pair in pairs]
    chosen = [len(pair.chosen_ids) for pair in pairs]
    wrong = [len(pair.rejected_ids) if rejected else 0 for pair in pairs]
    shared = [pair.shared if rejected and share else 0 for pair in pairs]
    scored = sum(chosen) + sum(wrong) - sum(shared)
    if not share:
        rows = len(pairs) * (2 if rejected else 1)
        length = max(prompt + max(a, b) for prompt, a, b in zip(prompts, chosen, wrong, strict=True))
        return Work(rows * length, scored, rows * _triangle(length))
    common = _common([pair.prompt_ids for pair in pairs])
    attended = _triangle(common)
    for prompt, one, other, both in zip(prompts, chosen, wrong, shared, strict=True):
        # The whole first answer behind the common start, and the tail of the second behind start and prefix.
        attended += _triangle(prompt + one) - _triangle(common)
        attended += _triangle(prompt + other) - _triangle(prompt + both) if other else 0
    return Work(row_tokens(pairs, rejected=rejected), scored, attended)


def _triangle(length: int) -> int:
    """Pairs of a position and one that it sees in a causal row."""
    return length * (length + 1) // 2


def _pack_plain(pairs: Sequence[EncodedPair], rejected: bool, pad_id: int) -> Batch:
    edited = [pair.edited() for pair in pairs]
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
        changed = edited[number][0 if chosen else 1]
        scored.add(number, range(first, first + len(answer)), answer, changed, chosen, not chosen)
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
        self.edited: list[bool] = []

    def add(
        self, pair: int, rows: Sequence[int], targets: Sequence[int], edited: list[bool], chosen: bool, rejected: bool
    ) -> None:
        self.rows += rows
        self.targets += targets
        self.pair += [pair] * len(targets)
        self.chosen += [chosen] * len(targets)
        self.rejected += [rejected] * len(targets)
        self.edited += edited

    def tensors(self) -> dict[str, Any]:
        return {
            "rows_N": torch.tensor(self.rows),
            "targets_N": torch.tensor(self.targets),
            "pair_N": torch.tensor(self.pair),
            "chosen_N": torch.tensor(self.chosen),
            "rejected_N": torch.tensor(self.rejected),
            "edited_N": torch.tensor(self.edited),
        }
