"""The overview of a page: the file in a few numbers, and the counts of each kind of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spotcli.html_pages import Figure
from spotcli.inspection.answer_overview import Lengths, ReplySummary, SampleSummary
from spotcli.inspection.file_overview import FileSummary, KindSummary, MixedSummary
from spotcli.inspection.overview import ReviewSummary
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.score_changes import CHANGES

SHOWN_COUNTS = 12
"""Values of a count that are listed; the others are added up."""


@dataclass(frozen=True)
class PageOverview:
    """What a page shows of one kind of rows."""

    kind: str
    pairs: ReviewSummary | None
    """With the histogram of change ratios."""
    scores: ScoreSummary | None
    """With a table of the tasks."""
    counts: Mapping[str, Mapping[str, int]]
    """Title -> value -> rows."""


def page_overviews(summary: FileSummary) -> list[PageOverview]:
    """The overview of each kind of rows in a file."""
    return [_overview(kind, part) for kind, part in _parts(summary).items()]


def figures(summary: FileSummary, damaged: int, duplicates: int) -> list[Figure]:
    """The file in a few numbers.

    Args:
        summary: of the file.
        damaged: damaged rows of the page.
        duplicates: rows of the page whose key an earlier row has.
    """
    parts = list(_parts(summary).values())
    shown = _figures(parts[0]) if len(parts) == 1 else []
    shown += [Figure("Damaged", f"{damaged:,}", "rows that cannot be read", "bad")] if damaged else []
    return shown + (
        [Figure("Duplicate", f"{duplicates:,}", "rows with a key of an earlier row", "bad")] * bool(duplicates)
    )


def _parts(summary: FileSummary) -> Mapping[str, KindSummary]:
    return summary.kinds if isinstance(summary, MixedSummary) else {"": summary}


def _figures(summary: KindSummary) -> list[Figure]:
    if isinstance(summary, ReviewSummary):
        return _pair_figures(summary)
    if isinstance(summary, SampleSummary):
        return _sample_figures(summary)
    return _reply_figures(summary) if isinstance(summary, ReplySummary) else _score_figures(summary)


def _overview(kind: str, summary: KindSummary) -> PageOverview:
    counts: dict[str, Mapping[str, int]] = {}
    if isinstance(summary, ReviewSummary):
        counts = {"Verdict of y+": summary.verdicts, "Oracle": summary.oracles, "Decision": summary.reviews}
    elif isinstance(summary, ScoreSummary):
        counts = {"Undecided": summary.reasons}
    elif isinstance(summary, SampleSummary):
        counts = {"Verdict": summary.verdicts, "Finish": summary.finish, "Undecided": summary.reasons}
        counts |= {"Model": summary.models}
    else:
        counts = {"Entry": summary.kinds, "Oracle": summary.oracles, "Model": summary.models, "Form": summary.modes}
        counts |= {"Finish": summary.finish, "Without a correction": summary.declined, "Attempt": summary.attempts}
    shown = {title: _most_frequent(values) for title, values in counts.items() if values.keys() - {"none"}}
    pairs = summary if isinstance(summary, ReviewSummary) else None
    scores = summary if isinstance(summary, ScoreSummary) and (summary.tasks or summary.changes) else None
    return PageOverview(kind, pairs, scores, shown)


def _most_frequent(values: Mapping[str, int]) -> dict[str, int]:
    """The first values of a count, which is in order, and the sum of the others."""
    if len(values) <= SHOWN_COUNTS:
        return dict(values)
    shown = dict(list(values.items())[: SHOWN_COUNTS - 1])
    return {**shown, f"{len(values) - len(shown):,} others": sum(values.values()) - sum(shown.values())}


def _pair_figures(summary: ReviewSummary) -> list[Figure]:
    figures = [_selected("Pairs", summary.matching, summary.pairs)]
    if summary.ratio_median is not None:
        note = f"median; mean {summary.ratio_mean:.3f}, largest {summary.ratio_max:.3f}"
        figures.append(Figure("Change ratio", f"{summary.ratio_median:.3f}", note))
        kind = "bad" if summary.above_gamma else "good"
        figures.append(Figure("Above gamma", f"{summary.above_gamma:,}", f"gamma {summary.gamma:g}", kind))
    wrong, undecided = (summary.verdicts.get(name, 0) for name in ("wrong", "undecided"))
    if summary.verdicts.keys() - {"none"}:
        kind = "bad" if wrong else "open" if undecided else "good"
        note = f"{summary.verdicts.get('right', 0):,} right, {undecided:,} undecided"
        figures.append(Figure("y+ wrong", f"{wrong:,}", note, kind))
    decided = {name: count for name, count in summary.reviews.items() if name != "none"}
    if decided:
        note = ", ".join(f"{name} {count:,}" for name, count in decided.items())
        figures.append(Figure("Decided", f"{sum(decided.values()):,}", note))
    return figures


def _sample_figures(summary: SampleSummary) -> list[Figure]:
    figures = [_selected("Samples", summary.matching, summary.samples)]
    figures.append(Figure("Problems", f"{summary.problems:,}", f"{summary.solved:,} with a right answer"))
    graded = {name: count for name, count in summary.verdicts.items() if name != "none"}
    if graded:
        right = graded.get("right", 0)
        note = ", ".join(f"{count:,} {name}" for name, count in graded.items() if name != "right")
        figures.append(Figure("Right", f"{100 * right / sum(graded.values()):.1f} %", note))
    return [*figures, *_lengths(summary.characters), *_cost(summary.cost)]


def _score_figures(summary: ScoreSummary) -> list[Figure]:
    if summary.against is None:
        right, wrong, undecided = (
            sum(counts[name] for counts in summary.tasks.values()) for name in ("right", "wrong", "undecided")
        )
        answers = right + wrong + undecided
        selected = _selected("Answers", summary.matching, summary.answers)
        note = f"{right:,} right, {wrong:,} wrong, {undecided:,} undecided"
        return [selected, Figure("Right", f"{100 * right / answers:.1f} %", note)] if answers else [selected]
    won, lost, both, neither = (sum(counts[change] for counts in summary.changes.values()) for change in CHANGES)
    compared = won + lost + both + neither
    return [
        Figure("Problems", f"{compared:,}", "compared with the base model"),
        Figure("Lost", f"{lost:,}", "the base model has more right answers", "bad" if lost else "good"),
        Figure("Won", f"{won:,}", "the base model has fewer", "good" if won else ""),
        Figure("As before", f"{both + neither:,}", f"{both:,} right with both models, {neither:,} with neither"),
    ]


def _reply_figures(summary: ReplySummary) -> list[Figure]:
    figures = [_selected("Entries", summary.matching, summary.entries)]
    figures.append(Figure("Answers", f"{summary.answers:,}", "wrong answers with a reply"))
    declined = sum(summary.declined.values())
    figures.append(Figure("Without a correction", f"{declined:,}", f"of {summary.kinds.get('reply', 0):,} replies"))
    return [*figures, *_lengths(summary.characters), *_cost(summary.cost)]


def _selected(title: str, matching: int, total: int) -> Figure:
    note = f"of {total:,} in the file" if matching < total else "in the file"
    return Figure("Selected" if matching < total else title, f"{matching:,}", note)


def _lengths(lengths: Lengths | None) -> list[Figure]:
    if lengths is None:
        return []
    return [Figure("Length", f"{lengths.median:,.0f}", f"characters, median; largest {lengths.largest:,}")]


def _cost(cost: float | None) -> list[Figure]:
    return [] if cost is None else [Figure("Cost", f"${cost:,.2f}", "US dollars")]
