"""The rows of a page: pairs, answers of an evaluation, and the answers of two models to one problem."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spotcli import html_pages
from spotcli.console import one_line
from spotcli.core.edits import diff
from spotcli.decisions import STALE
from spotcli.inspection.page.diff_markup import answer_markup, diff_markup
from spotcli.inspection.page.outliers import OutlierKind, RowFacts, by_number, with_choice
from spotcli.inspection.pair_facts import cost_text, oracle_name, pair_change_ratio
from spotcli.inspection.pair_filter import CHANGE, Fields
from spotcli.records import Pair, Problem, Score
from spotcli.score_changes import ComparedAnswers

if TYPE_CHECKING:
    from markupsafe import Markup

SHORT_PROMPT = 600
"""Characters up to which a prompt is shown; a longer one is folded."""


@dataclass(frozen=True)
class Number:
    """A number of the rows: they are sorted by it, and selected by its range."""

    title: str
    show: Callable[[float], str]
    step: str = "any"
    """Of the inputs of its range."""


def _ratio(value: float) -> str:
    return f"{value:.3f}"


def _nats(value: float) -> str:
    return f"{value:.3g} nats/token"


def _characters(value: float) -> str:
    return f"{value:,.0f} characters"


PAIR_NUMBERS = {
    "ratio": Number("Change ratio", _ratio, "0.01"),
    "surprise": Number("Mean surprise of y+", _nats, "0.01"),
    "surprise_rejected": Number("Mean surprise of y-", _nats, "0.01"),
    "first": Number("First edit", lambda value: f"{value:.0%} of y-", "0.01"),
    "length": Number("Length of y+", _characters, "1"),
    "cost": Number("Cost", lambda value: f"${value:,.4f}"),
}
"""Names of fields of the filter language -> how they are shown."""

SCORE_NUMBERS = {"length": Number("Length", _characters, "1")}

COMPARED_NUMBERS = SCORE_NUMBERS | {
    "growth": Number("Length, tuned to base", lambda value: f"{value:,.2f} times as long", "0.1")
}


@dataclass(frozen=True)
class Fact:
    """A value in the head of a row, with its name and its style."""

    name: str
    text: str
    style: str = ""


@dataclass(frozen=True)
class Card:
    """What is shown of one row."""

    facts: Sequence[Fact]
    prompt: Markup
    opened: bool
    """Whether the prompt is shown without being asked for."""
    reference: str
    answers: Sequence[tuple[str, Markup]]
    """The answers, or the diff of both, with their headings."""
    number: int = 0
    """In the order of the page, from 0."""
    head: RowFacts = field(default_factory=lambda: RowFacts("", ""))


@dataclass(frozen=True)
class PageRows:
    """The rows that a page shows, and how."""

    noun: str
    rows: Callable[[], Iterator[Any]]
    """Reads the selected rows; a page reads them twice."""
    facts: Callable[[Any], RowFacts]
    card: Callable[[Any], Card]
    filters: Mapping[str, str]
    """Name of a filter -> its title."""
    numbers: Mapping[str, Number]
    outliers: Sequence[OutlierKind]

    def numbered(self) -> Iterator[tuple[int, Any, RowFacts]]:
        """The rows with their numbers from 0, and facts with unique anchors."""
        seen: dict[str, int] = {}
        for number, row in enumerate(self.rows()):
            facts = self.facts(row)
            times = seen[facts.anchor] = seen.get(facts.anchor, 0) + 1
            yield number, row, facts if times == 1 else replace(facts, anchor=f"{facts.anchor}-{times}")


def pair_rows(rows: Callable[[], Iterator[Pair]], fields: Fields[Pair]) -> PageRows:
    """Pairs as they are shown, whose filters and numbers are fields of the filter language."""
    filters = {"verdict": "y+", "decision": "Decision", "oracle": "Oracle"}
    numbers = {name: number for name, number in PAIR_NUMBERS.items() if name in fields.numbers}

    def facts(pair: Pair) -> RowFacts:
        known = {name: _finite(fields.numbers[name](pair)) for name in numbers}
        if pair.rejected is None:
            known |= {"ratio": None, "first": None}
        return RowFacts(
            anchor(*pair.key),
            _title(pair.id, pair.trial),
            {name: _choice(fields.texts[name](pair)) for name in filters},
            {name: value for name, value in known.items() if value is not None},
        )

    outliers = [
        OutlierKind("Stale decisions", with_choice("decision", STALE)),
        OutlierKind("y+ wrong", with_choice("verdict", "wrong")),
        OutlierKind("y+ undecided", with_choice("verdict", "undecided")),
        *(
            OutlierKind(title, by_number(name), numbers[name].show)
            for name, title in (
                ("ratio", "Largest change ratio"),
                ("surprise", "Largest mean surprise"),
                ("length", "Longest y+"),
                ("cost", "Most expensive"),
            )
            if name in numbers
        ),
    ]
    return PageRows("pair", rows, facts, lambda pair: _pair_card(pair, facts(pair)), filters, numbers, outliers)


def score_rows(rows: Callable[[], Iterator[Score]]) -> PageRows:
    """Answers of an evaluation."""
    filters = {"verdict": "Verdict", "finish": "Finish", "reason": "Reason", "task": "Task"}
    outliers = [
        *_score_outliers("verdict", "Undecided", "finish"),
        OutlierKind("Longest answers", by_number("length"), SCORE_NUMBERS["length"].show),
    ]
    return PageRows("answer", rows, _score_facts, _score_card, filters, SCORE_NUMBERS, outliers)


def compared_rows(rows: Callable[[], Iterator[ComparedAnswers]]) -> PageRows:
    """Problems, each with the answers of the base and of the tuned model."""
    filters = {CHANGE: "Change", "tuned": "Tuned", "base": "Base", "finish": "Finish", "task": "Task"}
    outliers = [
        *_score_outliers("tuned", "Undecided tuned answer", "finish"),
        OutlierKind("Length grew most", by_number("growth"), COMPARED_NUMBERS["growth"].show),
        OutlierKind("Longest tuned answers", by_number("length"), COMPARED_NUMBERS["length"].show),
    ]

    def facts(row: ComparedAnswers) -> RowFacts:
        known = _score_facts(row.tuned)
        choices = {"tuned": row.tuned.verdict, "base": row.base.verdict, CHANGE: row.problem.change}
        lengths = len(row.tuned.response), len(row.base.response)
        growth = {"growth": lengths[0] / lengths[1]} if lengths[1] else {}
        return replace(known, choices={**known.choices, **choices}, numbers={**known.numbers, **growth})

    return PageRows("problem", rows, facts, _compared_card, filters, COMPARED_NUMBERS, outliers)


def anchor(*key: object) -> str:
    """The ``id`` of a row on the page; the same row has the same one on every page."""
    return f"row-{hashlib.sha256(repr(key).encode('utf-8', 'replace')).hexdigest()[:12]}"


def _score_outliers(name: str, title: str, finish: str) -> list[OutlierKind]:
    return [
        OutlierKind(title, with_choice(name, "undecided")),
        OutlierKind("Truncated", with_choice(finish, "truncated")),
    ]


def _title(id: str, trial: int) -> str:
    name = one_line(id)
    name = name if len(name) <= 200 else f"{name[:199]}…"
    return f"{name} · trial {trial}" if trial else name


def _choice(value: str | None) -> str:
    """The value of a filter, short enough for its list."""
    return "none" if not value else one_line(value[:60])


def _finite(value: float | None) -> float | None:
    """A number from outside that a page can show."""
    try:
        known = None if value is None else float(value)
    except OverflowError:
        return None
    return known if known is not None and math.isfinite(known) else None


def _prompt(row: Problem) -> tuple[Markup, bool]:
    """All turns of the prompt as HTML, and whether it is short."""
    turns = row.messages
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" if len(turns) > 1 else turn["content"] for turn in turns)
    return answer_markup(prompt, shown=20 * SHORT_PROMPT), len(prompt) < SHORT_PROMPT


def _pair_card(pair: Pair, known: RowFacts) -> Card:
    facts = []
    if pair.rejected is not None:
        note = "" if pair.change_ratio is not None else " on words"
        facts.append(Fact("change ratio", f"{pair_change_ratio(pair):.3f}{note}", "strong"))
    facts.append(Fact("y+", pair.verdict or "not graded", pair.verdict or ""))
    decision = known.choices["decision"]
    optional = {
        "decision": (None if decision == "none" else decision, "decision"),
        "oracle": (oracle_name(pair), ""),
        "cost": (cost_text(pair), ""),
        "source": (pair.source, ""),
    }
    facts += [Fact(name, one_line(value), style) for name, (value, style) in optional.items() if value]
    for name in ("surprise", "surprise_rejected"):
        if name in known.numbers:
            title = f"surprise of {'y+' if name == 'surprise' else 'y-'}"
            facts.append(Fact(title, PAIR_NUMBERS[name].show(known.numbers[name])))
    heading = "" if pair.rejected is not None else "y+, the policy's own answer"
    return Card(facts, *_prompt(pair), pair.answer or "", [(heading, diff_markup(diff(pair.original, pair.chosen)))])


def _score_facts(score: Score) -> RowFacts:
    truncated = score.finish_reason == "length"
    choices = {"verdict": score.verdict, "finish": "truncated" if truncated else score.finish_reason}
    choices |= {"reason": _choice(score.reason), "task": _choice(score.task)}
    length = float(len(score.response))
    return RowFacts(anchor(*score.key), _title(score.id, score.trial), choices, {"length": length})


def _score_card(score: Score) -> Card:
    facts = [Fact("task", one_line(score.task)), *_verdict("verdict", score)]
    return Card(facts, *_prompt(score), score.answer or "", [("", answer_markup(score.response))])


def _compared_card(row: ComparedAnswers) -> Card:
    problem = row.problem
    style = {"won": "right", "lost": "wrong"}.get(problem.change, "strong")
    facts = [Fact("", problem.change, style), Fact("task", one_line(problem.task))]
    if problem.trials > 1:
        facts.append(Fact("right", f"{problem.base_right} to {problem.tuned_right} of {problem.trials}"))
    facts += [*_verdict("base", row.base), *_verdict("tuned", row.tuned)]
    old, new = row.base.response, row.tuned.response
    spans = html_pages.similar_diff(old, new)
    if spans is not None:
        answers = [("from the base model's answer to the tuned model's", diff_markup(spans))]
    else:
        answers = [("base answer", answer_markup(old)), ("tuned answer", answer_markup(new))]
    return Card(facts, *_prompt(row.tuned), row.tuned.answer or "", answers)


def _verdict(name: str, score: Score) -> list[Fact]:
    """Verdict, reason and extracted answer of one model."""
    notes = ["truncated"] if score.finish_reason == "length" else [score.reason] if score.reason else []
    notes += [f"extracted {score.extracted}"] if score.extracted is not None else []
    note = one_line(", ".join(notes))
    facts = [Fact(name, score.verdict, score.verdict)]
    return [*facts, Fact("", note if len(note) <= 200 else f"{note[:199]}…")] if note else facts
