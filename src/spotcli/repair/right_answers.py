"""The mode ``self``: the policy's right answers become rows, without an oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spotcli import decisions, jsonl, outputs
from spotcli.errors import RecipeError, UserError
from spotcli.grading.references import CONFLICTING
from spotcli.recipe import RectifySection
from spotcli.records import Sample
from spotcli.repair import pair_file
from spotcli.repair.cases import NOT_NEEDED
from spotcli.repair.summary import Origin, RectifySummary, summarise_right_answers
from spotcli.reviews import reviewed_rows

EMPTY_ANSWER = "empty answer"
SAME_ANSWER = "same answer"
"""The reason of a right answer whose text an earlier answer to the problem has."""


def keep_right_answers(
    settings: RectifySection,
    source: Path,
    origin: Origin,
    *,
    fresh: bool,
    dry_run: bool,
) -> RectifySummary:
    """Make rows of the policy's right answers, without an oracle.

    Args:
        source: the samples.
        origin: the samples, and the contested ones among them.
        fresh: keep the old files under another name.
        dry_run: write nothing.

    Raises:
        RecipeError: ``rectify.keep`` is set.
        UserError: the file has replies of an oracle.
        SettingsChanged: the file was made in another mode.
    """
    path = origin.path
    if settings.keep is not None:
        raise RecipeError(
            "`keep` and the mode `self` are mutually exclusive: this mode keeps every right answer",
            where="rectify.keep",
            cure="limit the rows with rectify.target, or correct wrong answers too (mode: surgery)",
        )
    right, reasons = distinct_right_answers(origin.samples, origin.contested)
    kept = right[: settings.target]
    if len(kept) < len(right):
        reasons[NOT_NEEDED] = len(right) - len(kept)
    summary = summarise_right_answers(origin, len(kept), dict(sorted(reasons.items())))
    if dry_run:
        return summary
    if fresh:
        pair_file.set_aside(path)
    if pair_file.journal_path(path).exists():
        raise UserError(
            "the file has replies of an oracle",
            where=str(path),
            cure="write to another file with -o, or start from scratch with --fresh",
        )
    with outputs.Output(path, command="spot rectify", settings={"mode": "self"}) as output:
        reviewed = reviewed_rows(output.rows(), decisions.read(path).covers)
        output.replace(right_row(sample, reviewed.get(sample.key)) for sample in kept)
        origin_of_rows = {"path": settings.samples, "sha256": jsonl.digest(source)}
        output.note(filters={"target": settings.target}, samples=origin_of_rows)
        output.finish(summary.counts, complete=True)
    return summary


def distinct_right_answers(
    samples: Iterable[Sample], contested: frozenset[tuple[str, int]]
) -> tuple[list[Sample], Counter[str]]:
    """The right answers, each text once per problem, and the numbers of those left out by reason.

    Args:
        samples: of any verdict.
        contested: keys of samples whose prompt has different reference answers.
    """
    right: list[Sample] = []
    reasons: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for sample in samples:
        if sample.verdict != "right":
            continue
        text = (sample.id, sample.response.strip())
        if not text[1]:
            reasons[EMPTY_ANSWER] += 1
        elif sample.key in contested:
            reasons[CONFLICTING] += 1
        elif text in seen:
            reasons[SAME_ANSWER] += 1
        else:
            seen.add(text)
            right.append(sample)
    return right, reasons


def right_row(
    sample: Sample, reviewed: dict[str, Any] | None = None, reason: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The row of a right answer, without y-.

    Args:
        sample: the answer.
        reviewed: the row that a person reviewed; it is kept if it has the same answer.
        reason: why the answer was chosen, if there were others.
    """
    if reviewed is not None and reviewed.get("response") == sample.response and reviewed.get("rejected") is None:
        return reviewed
    row = sample.model_dump(mode="json", exclude_unset=True)
    return row | {"chosen": sample.response, "oracle": {"name": "self", **(reason or {})}}
