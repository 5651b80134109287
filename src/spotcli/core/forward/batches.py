"""TODO."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from spotcli.core.forward.encoding import EncodedPair


def sizes(pairs: Sequence[EncodedPair], *, share: bool) -> list[int]:
    """Tokens of each pair by itself, as micro-batches are made up by them: of the shared layout, or of two rows."""
    return [pair.shared_tokens if share else 2 * pair.longest for pair in pairs]


@dataclass(frozen=True)
class MicroBatch:
    """Which pairs one rank takes in one forward pass."""

    members: tuple[int, ...]
    """Indices of pairs."""
    idle: bool = False
    """The step has fewer pairs than ranks: this rank runs a pair that does not count, to keep in step with the rest."""


@dataclass(frozen=True)
class Layout:
    """How an optimiser step is cut into micro-batches: a matter of memory and speed, not of what is learned."""

    step: int
    """Pairs of a step, over all ranks and micro-batches."""
    accumulate: int
    """Micro-batches of a step, on each rank."""
    ranks: int = 1
    tokens: int | None = None
    """Tokens that a micro-batch has at most; without it, micro-batches of a step have the same number of pairs."""
    padded: bool = False
    """A micro-batch is padded to its longest pair."""

    @property
    def micro(self) -> int:
        """Pairs of a micro-batch; their mean where tokens decide, rounded up."""
        return -(-self.step // (self.accumulate * self.ranks))

    def rounds(self, pairs: int) -> int:
        """Micro-batches on each rank that a step of so many pairs is cut into."""
        if self.tokens is None:
            return -(-pairs // (self.micro * self.ranks))
        return min(self.accumulate, -(-pairs // self.ranks))

    def rounds_in_epoch(self, pairs: int) -> int:
        """Micro-batches that each rank runs in an epoch."""
        whole, rest = divmod(pairs, self.step)
        return whole * self.accumulate + (self.rounds(rest) if rest else 0)


def fit(sizes: Sequence[int], *, step: int, ranks: int, tokens: int, padded: bool, seed: int, epochs: int) -> Layout:
    """The layout with the fewest micro-batches a step in which none has more tokens than the budget.

    The number is the same for all steps of the run, as transformers' Trainer wants it.

    Args:
        sizes: tokens of each pair; none has more than the budget.
        step: pairs of a step.
        ranks: processes that train together.
        tokens: the budget of a micro-batch.
        padded: a micro-batch is padded to its longest pair.
        seed: of the shuffle.
        epochs: of the run.
    """
    most = max(
        len(_filled(members, sizes, tokens, padded))
        for epoch in range(epochs)
        for members in _steps(sizes, step, seed, epoch)
    )
    return Layout(step, accumulate=-(-most // ranks), ranks=ranks, tokens=tokens, padded=padded)


def plan_epoch(sizes: Sequence[int], *, layout: Layout, seed: int, epoch: int) -> Iterator[tuple[MicroBatch, ...]]:
    """The micro-batches of an epoch, in order; of each, one for every rank.

    Every pair is taken exactly once. Pairs are shuffled by ``seed`` and ``epoch`` alone and cut into steps, so the same
    pairs meet in a step however it is laid out. Inside a step, where order does not matter, pairs of like size are put
    together: padding, and waiting for the slowest rank, become small. The last step of an epoch may be smaller; it is
    spread evenly over as few micro-batches as hold it.

    Args:
        sizes: tokens of each pair.
        layout: how a step is cut.
        seed: of the shuffle.
        epoch: from 0.
    """
    for members in _steps(sizes, layout.step, seed, epoch):
        slots = layout.rounds(len(members)) * layout.ranks
        if layout.tokens is None:
            bounds = [round(slot * len(members) / slots) for slot in range(slots + 1)]
            parts = [members[low:high] for low, high in pairwise(bounds)]
        else:
            parts = _balanced(members, sizes, slots, layout.tokens, layout.padded)
        batches = [MicroBatch(tuple(part)) if part else MicroBatch((members[0],), idle=True) for part in parts]
        for first in range(0, slots, layout.ranks):
            yield tuple(batches[first : first + layout.ranks])


def micro_batches(members: Sequence[int], sizes: Sequence[int], layout: Layout) -> list[list[int]]:
    """Pairs, the longest first, cut into micro-batches of the layout's size, whatever their number."""
    if layout.tokens is None:
        return [list(members[at : at + layout.micro]) for at in range(0, len(members), layout.micro)]
    return _filled(members, sizes, layout.tokens, layout.padded)


def _steps(sizes: Sequence[int], step: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """The pairs of each step of an epoch, the longest first."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(sizes), generator=generator).tolist()
    for start in range(0, len(order), step):
        yield sorted(order[start : start + step], key=lambda index: (-sizes[index], index))


def _filled(members: Sequence[int], sizes: Sequence[int], tokens: int, padded: bool) -> list[list[int]]:
    """Neighbours, the longest first, put together as far as the budget goes."""
    parts: list[list[int]] = []
    for member in members:
        if parts and _weight([*parts[-1], member], sizes, padded) <= tokens:
            parts[-1].append(member)
        else:
            parts.append([member])
    return parts


def _weight(part: Sequence[int], sizes: Sequence[int], padded: bool) -> int:
    return len(part) * sizes[part[0]] if padded else sum(sizes[member] for member in part)


def _balanced(members: list[int], sizes: Sequence[int], slots: int, tokens: int, padded: bool) -> list[list[int]]:
    """Neighbours put together in ``slots`` parts whose largest is as small as can be; parts stay empty at need."""
    smallest = range(sizes[members[0]], tokens)
    at = bisect_left(smallest, True, key=lambda budget: len(_filled(members, sizes, budget, padded)) <= slots)
    parts = _filled(members, sizes, smallest.start + at, padded)
    while len(parts) < slots and max(map(len, parts)) > 1:
        heaviest = max((part for part in parts if len(part) > 1), key=lambda part: _weight(part, sizes, padded))
        place, half = parts.index(heaviest), len(heaviest) // 2
        parts[place : place + 1] = [heaviest[:half], heaviest[half:]]
    return parts + [[] for _ in range(slots - len(parts))]
