"""``train.keep_share``: a fixed share of the rows of each training step are right answers, which have no y-.

An epoch goes through the corrections once, in a new order. Right answers are drawn in turn: all of them in a random
order, then all in another one, and on through the epochs, so that their numbers of draws differ by at most one. Order
and draws depend on the seed and the number of the epoch alone, so a resumed run continues with the right rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spotcli.core.forward.encoding import EncodedPair
from spotcli.errors import RecipeError
from spotcli.recipe import TrainSection
from spotcli.records import key_hash


@dataclass(frozen=True)
class Balance:
    """The rows of each training step."""

    corrections: tuple[int, ...]
    """Indices of the rows with y-."""
    right: tuple[int, ...]
    """Indices of the rows without y-."""
    step: int
    """Rows per training step; the last one of an epoch can have fewer."""
    right_per_step: int
    """How many of them have no y-."""
    seed: int

    @classmethod
    def of(cls, section: TrainSection, pairs: Sequence[EncodedPair], step: int, seed: int) -> Balance | None:
        """The balance that a recipe sets; None: steps are made of all rows in a random order.

        Raises:
            RecipeError: the data has rows of one kind only, or the share is less than one row of a step.
        """
        share = section.keep_share
        if share is None:
            return None
        right = tuple(index for index, pair in enumerate(pairs) if not pair.rejected_ids)
        corrections = tuple(index for index, pair in enumerate(pairs) if pair.rejected_ids)
        if not right or not corrections:
            raise RecipeError(
                f"the data has {len(corrections)} corrections and {len(right)} rows without y-: there is nothing to "
                "balance",
                where="train.keep_share",
                cure="leave it out, or add right answers with `spot rectify --keep N`" if not right else "leave it out",
            )
        right_per_step = round(share * step)
        if not 0 < right_per_step < step:
            raise RecipeError(
                f"{share:g} of `batch_size` {step} is {right_per_step} rows, expected 1 to {step - 1}",
                where="train.keep_share",
                cure="change it, or train.batch_size",
            )
        return cls(corrections, right, step, right_per_step, seed)

    @property
    def corrections_per_step(self) -> int:
        return self.step - self.right_per_step

    @property
    def draws_per_epoch(self) -> int:
        """Right answers of an epoch, with repetitions."""
        steps, rest = divmod(len(self.corrections), self.corrections_per_step)
        return steps * self.right_per_step + self._right_beside(rest)

    @property
    def rows_per_epoch(self) -> int:
        return len(self.corrections) + self.draws_per_epoch

    def steps(self, epoch: int) -> Iterator[list[int]]:
        """Yield the rows of each training step of an epoch.

        Args:
            epoch: number of the epoch, from 0.
        """
        order = _shuffled(self.corrections, self.seed, "corrections", epoch)
        draw = epoch * self.draws_per_epoch
        for start in range(0, len(order), self.corrections_per_step):
            part = order[start : start + self.corrections_per_step]
            last = draw + self._right_beside(len(part))
            yield part + self._drawn(draw, last)
            draw = last

    def _right_beside(self, corrections: int) -> int:
        """Right answers in a step with that many corrections."""
        return round(corrections * self.right_per_step / self.corrections_per_step)

    def _drawn(self, first: int, last: int) -> list[int]:
        """The draws of right answers from ``first`` up to ``last``, by their number in the whole run."""
        rows: list[int] = []
        while first < last:
            turn, place = divmod(first, len(self.right))
            part = _shuffled(self.right, self.seed, "right", turn)[place : place + last - first]
            rows += part
            first += len(part)
        return rows


def _shuffled(rows: Sequence[int], seed: int, kind: str, turn: int) -> list[int]:
    """Rows in an order that depends on the other arguments alone."""
    return sorted(rows, key=lambda row: key_hash(seed, kind, turn, row))
