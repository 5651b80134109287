"""In which training steps a row was trained: derived again from the data, the seed and the batch plan of a run.

No file records the rows of each step. Their order depends on these three alone, so the trainer's own sampler gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from spotcli import decisions
from spotcli.core.forward.encoding import Encoded, Encoder
from spotcli.decisions import AppliedDecisions
from spotcli.errors import DataError, UserError
from spotcli.policies.pair_encoder import pair_encoder, pair_prompter
from spotcli.recipe import Recipe, TrainSection
from spotcli.records import Pair
from spotcli.reviews import RowKey
from spotcli.training import settings
from spotcli.training.batch_plan import plan_layout
from spotcli.training.data import TrainingData, decide_sharing
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import Ranks
from spotcli.training.rows import INVALID, InvalidRows, read_pairs
from spotcli.training.starting_model import inspect_model


@dataclass(frozen=True)
class TrainedRow:
    """What a run did with one row of its data."""

    key: RowKey
    steps: tuple[int, ...]
    """The training steps that had it, from 1."""
    left_out: str | None = None
    """Why it was not trained on."""


@dataclass(frozen=True)
class Replay:
    """The rows of a run that have one id, and the size of the run."""

    rows: list[TrainedRow]
    pairs: int
    """Pairs that the run trains on."""
    steps: int
    step_sizes: Mapping[int, int] = field(default_factory=dict)
    """Training step -> rows in it."""


def replay(recipe: Recipe, folder: Path, id: str, *, started: str | None, review: str | None) -> Replay:
    """Which training steps have the rows with an id. No weights are loaded.

    Args:
        recipe: of the run, as its folder has it.
        folder: what the paths of the recipe are relative to.
        id: of the rows.
        started: when the run started: later decisions of reviewers did not change it.
        review: what the decisions changed then, as the run recorded it.

    Raises:
        UserError: the data, the model's tokenizer or its configuration is missing, or decisions are lost.
    """
    settings.quiet_libraries()
    section, path = recipe.train, folder / recipe.train.data
    start = inspect_model(recipe.model or "", section)
    encoder = pair_encoder(pair_prompter(recipe), section, start)
    for until in dict.fromkeys((started, None)):
        reviewed = AppliedDecisions(decisions.read(path, until=until))
        encoded, places, left_out = _encoded(section, path, encoder, reviewed, id)
        if reviewed.digest == review:
            break
    else:
        raise UserError("the decisions of reviewers are not those of the run", where=str(decisions.review_path(path)))
    if not encoded.pairs:
        return Replay(left_out, 0, 0)
    sharing = decide_sharing(section, recipe.model or "", encoded.pairs)
    layout = plan_layout(section, encoded.pairs, share=sharing.on, seed=recipe.seed)
    data = TrainingData(encoded, reviewed=reviewed)
    members = _members(TrainPlan(recipe, folder, start, data, sharing, layout, Ranks()))
    trained = [
        TrainedRow(key, tuple(number for number, rows in members.items() if index in rows))
        for index, key in places.items()
    ]
    sizes = {number: len(rows) for number, rows in members.items()}
    return Replay([*trained, *left_out], len(encoded.pairs), len(members), sizes)


def _encoded(
    section: TrainSection, path: Path, encoder: Encoder, reviewed: AppliedDecisions, id: str
) -> tuple[Encoded, dict[int, RowKey], list[TrainedRow]]:
    """The pairs as the run encodes them; the index of each one with the id, and those that are left out."""
    invalid = InvalidRows(section.max_bad_rows)
    encoded, places = Encoded(), dict[int, RowKey]()
    left_out: list[TrainedRow] = []
    for _, pair in read_pairs(path, Pair, invalid=invalid.add):
        before, dropped = len(encoded.pairs), dict(encoded.dropped)
        reason = INVALID
        try:
            encoder.add(reviewed(pair), encoded)
        except DataError as error:
            invalid.add(error)
        else:
            reason = next((name for name, count in encoded.dropped.items() if count > dropped.get(name, 0)), INVALID)
        if pair.id == id and len(encoded.pairs) > before:
            places[before] = pair.key
        elif pair.id == id:
            left_out.append(TrainedRow(pair.key, (), reason))
    return encoded, places, left_out


def _members(plan: TrainPlan) -> dict[int, list[int]]:
    """Training step, from 1 -> the indices of its pairs."""
    from spotcli.training.trainer import _Rounds

    samplers = [_Rounds(replace(plan, ranks=Ranks(rank))) for rank in range(plan.layout.ranks)]
    members: dict[int, list[int]] = {}
    per_step, number, epoch = plan.layout.accumulate, 0, 0
    while number < plan.steps:
        for sampler in samplers:
            sampler.epoch = lambda epoch=epoch: epoch  # type: ignore[misc]
        # Every turn of an epoch has a micro-batch of each process; the last step of an epoch can have fewer turns.
        turns = [
            [index for [micro] in turn if not micro.idle for index in micro.members]
            for turn in zip(*samplers, strict=True)
        ]
        for first in range(0, len(turns), per_step):
            number += 1
            members[number] = [index for turn in turns[first : first + per_step] for index in turn]
            if number == plan.steps:
                return members
        epoch += 1
    return members
