"""Which pairs each process runs in each micro-batch of an epoch.

A training step has a fixed number of pairs. How the step is divided into micro-batches and ranks affects memory and
speed, not the result.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from spotcli.core.forward.encoding import EncodedPair


def sizes(pairs: Sequence[EncodedPair], *, share: bool) -> list[int]:
    """Return the tokens of each pair in a micro-batch: in the shared layout, or as two rows of equal length."""
    return [pair.shared_tokens if share else 2 * pair.longest for pair in pairs]


@dataclass(frozen=True)
class MicroBatch:
    """The pairs that one rank runs in one forward pass."""

    members: tuple[int, ...]
    """Indices of pairs."""
    idle: bool = False
    """The step has fewer pairs than ranks: this rank runs a pair that does not count, in step with the others."""


@dataclass(frozen=True)
class TokenLimit:
    """The most tokens of a micro-batch. Members are always sorted, the longest pair first."""

    tokens: int
    padded: bool = False
    """A micro-batch is padded to its longest pair."""

    def weight(self, members: Sequence[int], sizes: Sequence[int]) -> int:
        """Return the tokens of a micro-batch, padding included."""
        return len(members) * sizes[members[0]] if self.padded else sum(sizes[member] for member in members)

    def fill(self, members: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
        """Divide members into consecutive micro-batches, each filled up to the limit."""
        parts: list[list[int]] = []
        for member in members:
            if parts and self.weight([*parts[-1], member], sizes) <= self.tokens:
                parts[-1].append(member)
            else:
                parts.append([member])
        return parts

    def balance(self, members: Sequence[int], sizes: Sequence[int], slots: int) -> list[list[int]]:
        """Divide members into ``slots`` micro-batches, the largest as small as possible; some can be empty."""
        smallest = range(sizes[members[0]], self.tokens)
        index = bisect_left(
            smallest, True, key=lambda tokens: len(TokenLimit(tokens, self.padded).fill(members, sizes)) <= slots
        )
        parts = TokenLimit(smallest.start + index, self.padded).fill(members, sizes)
        while len(parts) < slots and max(map(len, parts)) > 1:
            heaviest = max((part for part in parts if len(part) > 1), key=lambda part: self.weight(part, sizes))
            place, half = parts.index(heaviest), len(heaviest) // 2
            parts[place : place + 1] = [heaviest[:half], heaviest[half:]]
        return parts + [[] for _ in range(slots - len(parts))]


@dataclass(frozen=True)
class Layout:
    """How a training step is divided into micro-batches. This affects memory and speed, not the result."""

    step: int
    """Pairs per step, over all ranks and micro-batches."""
    accumulate: int
    """Micro-batches per step and rank."""
    ranks: int = 1
    """Processes that train together."""
    tokens: int | None = None
    """Most tokens of a micro-batch; if None, all micro-batches of a step have the same number of pairs."""
    padded: bool = False
    """A micro-batch is padded to its longest pair."""

    @property
    def limit(self) -> TokenLimit | None:
        """The most tokens of a micro-batch; None if micro-batches have a number of pairs."""
        return None if self.tokens is None else TokenLimit(self.tokens, self.padded)

    @property
    def micro(self) -> int:
        """Pairs per micro-batch; with a limit on tokens their mean, rounded up."""
        return -(-self.step // (self.accumulate * self.ranks))

    def rounds(self, pairs: int) -> int:
        """Return the micro-batches per rank of a step of ``pairs`` pairs."""
        if self.tokens is None:
            return -(-pairs // (self.micro * self.ranks))
        return min(self.accumulate, -(-pairs // self.ranks))

    def rounds_in_epoch(self, pairs: int) -> int:
        """Return the micro-batches per rank of an epoch of ``pairs`` pairs."""
        whole, rest = divmod(pairs, self.step)
        return whole * self.accumulate + (self.rounds(rest) if rest else 0)


def fit(sizes: Sequence[int], *, step: int, ranks: int, limit: TokenLimit, seed: int, epochs: int) -> Layout:
    """Return the layout with the fewest micro-batches per step that all respect the limit.

    The number is the same for all steps of the run, because the Trainer of transformers requires it.

    Args:
        sizes: tokens of each pair; none has more than the limit.
        step: pairs per step.
        ranks: processes that train together.
        limit: the most tokens of a micro-batch.
        seed: seed of the shuffle.
        epochs: epochs of the run.
    """
    most = max(
        len(limit.fill(members, sizes)) for epoch in range(epochs) for members in _steps(sizes, step, seed, epoch)
    )
    return Layout(step, accumulate=-(-most // ranks), ranks=ranks, tokens=limit.tokens, padded=limit.padded)


def plan_epoch(sizes: Sequence[int], *, layout: Layout, seed: int, epoch: int) -> Iterator[tuple[MicroBatch, ...]]:
    """Yield the micro-batches of an epoch, in order, as tuples with one micro-batch per rank.

    Each pair is in exactly one micro-batch that counts. The shuffle depends only on ``seed`` and ``epoch``, so a step
    has the same pairs in every layout. The order inside a step does not matter, so pairs of similar size are put
    together to reduce padding and waiting between ranks. The last step of an epoch can be smaller; it is divided evenly
    into as few micro-batches as possible.

    Args:
        sizes: tokens of each pair.
        layout: how a step is divided.
        seed: seed of the shuffle.
        epoch: number of the epoch, from 0.
    """
    limit = layout.limit
    for members in _steps(sizes, layout.step, seed, epoch):
        slots = layout.rounds(len(members)) * layout.ranks
        if limit is None:
            bounds = [round(slot * len(members) / slots) for slot in range(slots + 1)]
            parts = [members[low:high] for low, high in pairwise(bounds)]
        else:
            parts = limit.balance(members, sizes, slots)
        batches = [MicroBatch(tuple(part)) if part else MicroBatch((members[0],), idle=True) for part in parts]
        for first in range(0, slots, layout.ranks):
            turn = tuple(batches[first : first + layout.ranks])
            # Otherwise the first rank would have the longest pairs of every turn, and the others would wait for it.
            yield turn if first // layout.ranks % 2 == 0 else turn[::-1]


def micro_batches(members: Sequence[int], sizes: Sequence[int], layout: Layout) -> list[list[int]]:
    """Divide members, the longest first, into micro-batches of the layout's size, without a limit on their number."""
    if (limit := layout.limit) is not None:
        return limit.fill(members, sizes)
    return [list(members[start : start + layout.micro]) for start in range(0, len(members), layout.micro)]


def _steps(sizes: Sequence[int], step: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Yield the pairs of each step of an epoch, the longest first."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(sizes), generator=generator).tolist()
    for start in range(0, len(order), step):
        yield sorted(order[start : start + step], key=lambda index: (-sizes[index], index))
