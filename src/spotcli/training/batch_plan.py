"""The batches of a run: pairs per training step, micro-batches, number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spotcli.core.forward.encoding import EncodedPair
from spotcli.errors import RecipeError
from spotcli.recipe import TrainSection
from spotcli.training.balance import Balance
from spotcli.training.keys import argument

if TYPE_CHECKING:
    from spotcli.core.forward.batches import Layout, MicroBatch

_MICRO_BATCH_SIZE = 4
"""Pairs per micro-batch where the recipe sets none."""

_BATCH_SIZE = 32
"""Pairs per training step where the recipe sets none."""


@dataclass(frozen=True)
class BatchSize:
    """The size of a training step as the recipe sets it."""

    pairs: int
    """Pairs per training step, over all processes."""
    accumulate: int | None
    """Micro-batches per training step on each process; None where ``train.tokens_per_micro_batch`` decides."""


def batch_size(section: TrainSection) -> BatchSize:
    """The batch size of a recipe.

    Raises:
        RecipeError: the sizes of batch and micro-batch contradict each other.
    """
    given, pairs = section.training_arguments, section.batch_size
    micro, accumulate = given.get("per_device_train_batch_size"), given.get("gradient_accumulation_steps")
    if section.tokens_per_micro_batch is not None:
        if micro or accumulate:
            other = "per_device_train_batch_size" if micro else "gradient_accumulation_steps"
            raise RecipeError(
                f"`tokens_per_micro_batch` and `{other}` are mutually exclusive",
                where="train.tokens_per_micro_batch",
                cure="set only train.batch_size beside it",
            )
        return BatchSize(pairs or _BATCH_SIZE, None)
    if pairs is None and (micro or accumulate):
        count = int(accumulate or 1)
        return BatchSize(int(micro or _MICRO_BATCH_SIZE) * count * section.ranks, count)
    pairs = pairs or _BATCH_SIZE
    per_process, rest = divmod(pairs, section.ranks)
    if micro is None:
        micro = per_process // accumulate if accumulate else math.gcd(per_process, _MICRO_BATCH_SIZE)
    if rest or not micro or per_process % micro or (accumulate and micro * accumulate != per_process):
        parts = [f"{section.ranks} process(es)", f"{micro} pair(s) per micro-batch"]
        if accumulate:
            parts.append(f"{accumulate} micro-batch(es)")
        raise RecipeError(
            f"`batch_size` {pairs} does not fit {', '.join(parts)}",
            where="train.batch_size",
            cure="batch_size = processes * per_device_train_batch_size * gradient_accumulation_steps",
        )
    return BatchSize(pairs, per_process // int(micro))


def total_steps(section: TrainSection, pairs: int, batch: int) -> int:
    """Training steps of the whole run.

    Args:
        section: the train section.
        pairs: pairs to train on.
        batch: pairs per training step.
    """
    max_steps = int(argument(section, "max_steps") or -1)
    if max_steps > 0:
        return max_steps
    return math.ceil(float(argument(section, "num_train_epochs")) * math.ceil(pairs / batch))


def epochs(section: TrainSection, pairs: int, batch: int) -> float:
    """Epochs of the whole run; the arguments are those of ``total_steps``."""
    if int(argument(section, "max_steps") or -1) > 0:
        return round(total_steps(section, pairs, batch) / math.ceil(pairs / batch), 2)
    return float(argument(section, "num_train_epochs"))


def plan_epoch(
    sizes: Sequence[int], *, layout: Layout, balance: Balance | None, seed: int, epoch: int
) -> Iterator[tuple[MicroBatch, ...]]:
    """Yield the micro-batches of an epoch, as ``core.forward.batches.plan_epoch`` does.

    Args:
        sizes: tokens of each row.
        layout: how a training step is divided.
        balance: the rows of each training step; None: all rows in a random order.
        seed: seed of the shuffle.
        epoch: number of the epoch, from 0.
    """
    from spotcli.core.forward import batches

    if balance is None:
        yield from batches.plan_epoch(sizes, layout=layout, seed=seed, epoch=epoch)
        return
    for rows in balance.steps(epoch):
        # A step of its own: it has the same micro-batches in any order of its rows.
        for turn in batches.plan_epoch([sizes[row] for row in rows], layout=layout, seed=seed, epoch=epoch):
            yield tuple(replace(micro, members=tuple(rows[index] for index in micro.members)) for micro in turn)


def plan_layout(section: TrainSection, pairs: Sequence[EncodedPair], *, share: bool, seed: int) -> Layout:
    """How each training step is cut into micro-batches.

    Raises:
        RecipeError: the sizes contradict each other, a pair has more tokens than a micro-batch may have, or the rows
            cannot be balanced.
    """
    from spotcli.core.forward.batches import Layout, TokenLimit, fit, sizes

    batch, limit = batch_size(section), section.tokens_per_micro_batch
    balance = Balance.of(section, pairs, batch.pairs, seed)
    if batch.accumulate is not None or limit is None:
        return Layout(batch.pairs, batch.accumulate or 1, section.ranks, padded=not share)
    tokens = sizes(pairs, share=share)
    if max(tokens) > limit:
        raise RecipeError(
            f"a pair has {max(tokens)} tokens, expected at most {limit} per micro-batch",
            where="train.tokens_per_micro_batch",
            cure=f"{max(tokens)} or more, or a smaller train.max_length, which leaves long pairs out",
        )
    rows = len(pairs) if balance is None else balance.rows_per_epoch
    epochs = math.ceil(total_steps(section, rows, batch.pairs) / math.ceil(rows / batch.pairs))
    token_limit = TokenLimit(limit, padded=not share)
    if balance is None:
        return fit(tokens, step=batch.pairs, ranks=section.ranks, limit=token_limit, seed=seed, epochs=epochs)
    steps = (sorted(step, key=lambda row: -tokens[row]) for epoch in range(epochs) for step in balance.steps(epoch))
    most = max(len(token_limit.fill(step, tokens)) for step in steps)
    return Layout(batch.pairs, -(-most // section.ranks), section.ranks, tokens=limit, padded=not share)
