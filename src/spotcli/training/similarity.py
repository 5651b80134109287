"""``train.similarity``: how similar both answers of each pair are to the starting policy (``core.similarity``).

    data.similarity.jsonl    one row per pair with y-, beside the data; `spot inspect` sorts and filters by it

The values come from the pass that computes the reference, and are cached in reference.jsonl with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

from spotcli import files
from spotcli.console import warn
from spotcli.errors import RecipeError
from spotcli.policies.pair_encoder import CHOSEN_ONLY
from spotcli.recipe import TrainSection
from spotcli.records import json_text
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import phase
from spotcli.training.reference import ReferenceRow


def check_similarity(section: TrainSection) -> None:
    """Check that the objective has a reference, whose pass computes the similarity.

    Raises:
        RecipeError: it has none.
    """
    if section.similarity and section.objective in CHOSEN_ONLY and not section.kept_kl:
        raise RecipeError(
            f"{section.objective} has no reference, in whose pass the similarity is computed",
            where="train.similarity",
            cure="use an objective with a reference, or leave it out",
        )


def similarity_quantiles(rows: Sequence[ReferenceRow] | None) -> dict[str, float] | None:
    """The 10th, 50th and 90th percentile of the normalized CHES; None if it is not known.

    Args:
        rows: of all pairs; None: the objective has no reference.
    """
    values = [row.ches_normalized for row in rows or () if row.ches_normalized is not None]
    if not values:
        return None
    tenths = quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    return {f"p{10 * number}": tenths[number - 1] for number in (1, 5, 9)}


def write_similarity(plan: TrainPlan, rows: Sequence[ReferenceRow] | None) -> None:
    """Write the similarity of each pair beside the data, and show its quantiles.

    Args:
        plan: the run.
        rows: of all pairs; None: the objective has no reference.
    """
    found = similarity_quantiles(rows)
    if rows is None or found is None:
        return
    path = plan.data_file.with_name(f"{plan.data_file.stem}.similarity.jsonl")
    lines = {
        digest: json_text(
            {"pair": digest, "policy": plan.model, "ches": row.ches, "ches_normalized": row.ches_normalized}
        )
        for digest, row in zip(plan.data.digests, rows, strict=True)
        if row.ches is not None
    }
    try:
        files.write_text(path, "".join(f"{line}\n" for line in lines.values()))
    except OSError as error:
        warn(f"{path}: the similarity of the pairs was not written: {error.strerror}")
    shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    phase(f"similarity of the answers (normalized CHES; larger is more similar, 0 is equal): {shown}")
