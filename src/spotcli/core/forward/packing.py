"""Pairs as tensors: one row that contains each shared prefix once, or two padded rows per pair.

Shared layout: one row without padding. Each pair has a prefix P (its prompt and the common beginning of its answers), a
chosen tail A and a rejected tail B:

    tokens       C [P A B][P A B] ...
    positions    0 .. c-1 for C; c .. c+p+a-1 for P and A; c+p .. c+p+b-1 for B, which continues P as if A were absent
    spans        (start, p, a, b) of each pair; ``shared_attention`` uses them to separate the pairs, and A from B

C is the common beginning of all prompts in the row (a system prompt, worked examples). The row contains it once, and P
is the rest of each prompt.

Plain layout: each answer is a right-padded row, for any architecture.

A pair without y- has an empty rejected tail, or one row: its answer is run once and counts for y+ only.

Both layouts list the scored positions and the answers that each scored token belongs to, so the code after the forward
pass does not depend on the layout. A shared response token is scored once and counts for both answers.

Shapes, as suffixes of names: R rows, L tokens of a row, N scored positions, B pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spotcli.core.forward.encoding import EncodedPair, common_start

Span = tuple[int, int, int, int]
"""Start of a pair in the row; tokens of its prefix, of its chosen tail, of its rejected tail."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch of pairs."""

    ids_RL: Tensor
    positions_RL: Tensor
    rows_N: Tensor
    """Scored positions in the flattened [R * L] input; each predicts the next token."""
    targets_N: Tensor
    """The token after each scored position."""
    pair_N: Tensor
    """Index of the pair that a scored token belongs to."""
    chosen_N: Tensor
    """Whether a scored token counts for the chosen answer."""
    rejected_N: Tensor
    """Whether a scored token counts for the rejected answer; shared tokens count for both."""
    edited_N: Tensor
    """Whether a scored token is missing from the other answer of its pair; all others were kept."""
    chosen_at_T: Tensor
    """Indices of the scored tokens that count for the chosen answer; a GPU would have to count a mask first."""
    pairs: int
    """Number of pairs, B; rows without y- count."""
    attention_mask_RL: Tensor | None = None
    """1 for tokens, 0 for padding; plain layout only."""
    common: int = 0
    """Tokens of the common beginning of all prompts, at the start of the row; shared layout only."""
    spans: tuple[Span, ...] | None = None
    """Shared layout only. Python numbers, because reading a tensor on a GPU would block in every layer."""

    def model_inputs(self) -> dict[str, Any]:
        """Return the keyword arguments for a model that ``logps.install`` has prepared."""
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
        """Return logp(y+) and logp(y-), each [B]: sums over response tokens; without y-, logp(y-) is 0."""
        zeros_B = logps_N.new_zeros(self.pairs)
        chosen_B = zeros_B.index_add(0, self.pair_N, logps_N * self.chosen_N)
        rejected_B = zeros_B.index_add(0, self.pair_N, logps_N * self.rejected_N)
        return chosen_B, rejected_B

    def span_sums(self, values_N: Tensor) -> Tensor:
        """Return the sums over the kept tokens of y+, the edited tokens of y+, and the edited tokens of y-, [3]."""
        spans = (self.chosen_N & ~self.edited_N, self.chosen_N & self.edited_N, self.rejected_N & self.edited_N)
        return torch.stack([(values_N * span_N).sum() for span_N in spans])

    def edited_logps(self, logps_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``sequence_logps`` over the edited tokens alone."""
        return self.sequence_logps(logps_N * self.edited_N)

    def error_logps(self, logps_N: Tensor, errors_R: Tensor) -> Tensor:
        """Return the part of logp(y-) on the errors, [B].

        Args:
            logps_N: log-probabilities of the scored tokens.
            errors_R: 1 for errors, 0 for other tokens of the rejected answers, pair by pair.
        """
        pair_R, logps_R = self.pair_N[self.rejected_N], logps_N[self.rejected_N]
        return logps_N.new_zeros(self.pairs).index_add(0, pair_R, logps_R * errors_R)

    def kept_token_logps(self, logps_N: Tensor) -> Tensor:
        """Return the log-probabilities of the kept tokens of the chosen answers, pair by pair, [K]."""
        return logps_N[self.chosen_N & ~self.edited_N]

    def chosen_token_logps(self, logps_N: Tensor) -> Tensor:
        """Return the log-probabilities of the tokens of the chosen answers, pair by pair, [T]."""
        return logps_N.index_select(0, self.chosen_at_T)

    def to(self, device: Any) -> Batch:
        """Return the batch with its tensors on ``device``."""
        moved: dict[str, Any] = {
            name: upload(value, device) if isinstance(value, Tensor) else value for name, value in vars(self).items()
        }
        return Batch(**moved)


def upload(tensor: Tensor, device: Any) -> Tensor:
    """Return a tensor on ``device``; the copy to a GPU does not wait for the work that the GPU still has."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu" and torch.cuda.is_available():
        tensor = tensor.pin_memory()  # a copy from other memory waits
    return tensor.to(device, non_blocking=True)


def pack(pairs: Sequence[EncodedPair], *, share: bool, rejected: bool = True) -> Batch:
    """Lay out pairs as tensors.

    Args:
        pairs: at least one.
        share: use the shared layout, else the plain one.
        rejected: run the rejected answers too.
    """
    return _pack_shared(pairs, rejected) if share else _pack_plain(pairs, rejected)


def _pack_shared(pairs: Sequence[EncodedPair], rejected: bool) -> Batch:
    common = common_start(pairs)
    ids: list[int] = [*pairs[0].prompt_ids[:common]]
    positions: list[int] = [*range(common)]
    scored = _ScoredTokens()
    spans: list[Span] = []
    for index, pair in enumerate(pairs):
        start, prompt = len(ids), len(pair.prompt_ids) - common
        shared = pair.shared if rejected else len(pair.chosen_ids)
        prefix = prompt + shared
        chosen, wrong = pair.chosen_ids[shared:], pair.rejected_ids[shared:] if rejected else ()
        new, old = pair.edited()
        ids += [*pair.prompt_ids[common:], *pair.chosen_ids, *wrong]
        positions += [*range(common, common + prefix + len(chosen))]
        positions += [*range(common + prefix, common + prefix + len(wrong))]
        spans.append((start, prefix, len(chosen), len(wrong)))
        # The last position of the prefix predicts the first token of both tails: it is scored twice and run once.
        last, tail = start + prefix - 1, start + prefix + len(chosen)
        beginning = range(start + prompt - 1, last)
        scored.add(index, beginning, pair.chosen_ids[:shared], new[:shared], chosen=True, rejected=rejected)
        scored.add(index, range(last, last + len(chosen)), chosen, new[shared:], chosen=True, rejected=False)
        rows = [last, *range(tail, tail + len(wrong) - 1)][: len(wrong)]
        scored.add(index, rows, wrong, old[shared:] if rejected else [], chosen=False, rejected=True)
    return Batch(
        ids_RL=torch.tensor([ids]), positions_RL=torch.tensor([positions]), pairs=len(pairs), common=common,
        spans=tuple(spans), **scored.tensors(),
    )  # fmt: skip


def _pack_plain(pairs: Sequence[EncodedPair], rejected: bool) -> Batch:
    edited = [pair.edited() for pair in pairs]
    answers = [(index, pair.prompt_ids, pair.chosen_ids, True) for index, pair in enumerate(pairs)]
    if rejected:
        answers += [
            (index, pair.prompt_ids, pair.rejected_ids, False) for index, pair in enumerate(pairs) if pair.rejected_ids
        ]
    length = max(len(prompt) + len(answer) for _, prompt, answer, _ in answers)
    ids_RL = torch.zeros(len(answers), length, dtype=torch.long)  # the mask hides the padding
    mask_RL = torch.zeros_like(ids_RL)
    scored = _ScoredTokens()
    for row, (index, prompt, answer, chosen) in enumerate(answers):
        end = len(prompt) + len(answer)
        ids_RL[row, :end] = torch.tensor([*prompt, *answer])
        mask_RL[row, :end] = 1
        first = row * length + len(prompt) - 1
        changed = edited[index][0 if chosen else 1]
        scored.add(index, range(first, first + len(answer)), answer, changed, chosen=chosen, rejected=not chosen)
    positions_RL = torch.arange(length).expand(len(answers), length).contiguous()
    return Batch(
        ids_RL=ids_RL, positions_RL=positions_RL, pairs=len(pairs), attention_mask_RL=mask_RL, **scored.tensors()
    )


class _ScoredTokens:
    """The scored positions of a batch, collected pair by pair."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.targets: list[int] = []
        self.pair: list[int] = []
        self.chosen: list[bool] = []
        self.rejected: list[bool] = []
        self.edited: list[bool] = []

    def add(
        self,
        pair: int,
        rows: Sequence[int],
        targets: Sequence[int],
        edited: list[bool],
        *,
        chosen: bool,
        rejected: bool,
    ) -> None:
        self.rows += rows
        self.targets += targets
        self.pair += [pair] * len(targets)
        self.chosen += [chosen] * len(targets)
        self.rejected += [rejected] * len(targets)
        self.edited += edited

    def tensors(self) -> dict[str, Any]:
        """Return the fields of ``Batch``."""
        return {
            "rows_N": torch.tensor(self.rows),
            "targets_N": torch.tensor(self.targets),
            "pair_N": torch.tensor(self.pair),
            "chosen_N": torch.tensor(self.chosen),
            "rejected_N": torch.tensor(self.rejected),
            "edited_N": torch.tensor(self.edited),
            "chosen_at_T": torch.tensor([index for index, chosen in enumerate(self.chosen) if chosen]),
        }
