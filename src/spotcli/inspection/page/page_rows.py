"""The rows of a page: what the index and the filters know about each, and what is shown.

Rows are pairs, answers, and the answers of two models to one problem; damaged and duplicate rows say so. Filters and
numbers are fields of the filter language.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spotcli import html_pages
from spotcli.console import one_line
from spotcli.core.edits import diff
from spotcli.decisions import STALE
from spotcli.inspection.page.diff_markup import answer_markup, diff_markup
from spotcli.inspection.page.outliers import OutlierKind, RowFacts, by_number, with_choice
from spotcli.inspection.pair_facts import cost_text, oracle_name, pair_change_ratio
from spotcli.inspection.pair_filter import Fields
from spotcli.records import Pair, Problem, Score
from spotcli.score_changes import ComparedAnswers

if TYPE_CHECKING:
    from markupsafe import Markup

SHORT_PROMPT = 600
"""Characters up to which a prompt is shown; a longer one is folded."""
LONG_PROMPT = 12_000
"""Characters of a prompt of which the middle is left folded when it is shown."""
LONG_FACT = 200
"""Characters of a title or a fact that are shown."""
LONG_CHOICE = 60
"""Characters of the value of a filter."""


@dataclass(frozen=True)
class Shown:
    """A row of the file as a page gets it."""

    record: Any = None
    """The pair or the answer; None if the row is damaged."""
    compared: ComparedAnswers | None = None
    """The answer with that of the base model."""
    where: str = ""
    """File and line of a row that is damaged or duplicate."""
    damage: str | None = None
    """Why the row cannot be read, and the cure."""
    raw: str = ""
    """The damaged row."""
    duplicate_of: str | None = None
    """The line of the first row with the same key."""


@dataclass(frozen=True)
class Number:
    """A number of the rows: they are sorted by it, and selected by its range."""

    title: str
    show: Callable[[float], str]
    step: str = "any"
    """Of the inputs of its range."""


def _nats(value: float) -> str:
    return f"{value:.3g} nats/token"


NUMBERS = {
    "ratio": Number("Change ratio", lambda value: f"{value:.3f}", "0.01"),
    "surprise": Number("Mean surprise of y+", _nats, "0.01"),
    "surprise_rejected": Number("Mean surprise of y-", _nats, "0.01"),
    "first": Number("First edit", lambda value: f"{value:.0%} of y-", "0.01"),
    "length": Number("Length", lambda value: f"{value:,.0f} characters", "1"),
    "growth": Number("Length to base", lambda value: f"{value:,.2f} times as long", "0.1"),
    "cost": Number("Cost", lambda value: f"${value:,.4f}"),
}
"""Names of numbers, fields of the filter language all but ``growth`` -> how they are shown."""

FILTERS = {
    "row": "Row",
    "change": "Change",
    "verdict": "Verdict",
    "base": "Base model",
    "decision": "Decision",
    "entry": "Entry",
    "oracle": "Oracle",
    "model": "Model",
    "finish": "Finish",
    "reason": "Reason",
    "task": "Task",
}
"""Names of filters, fields of the filter language all but ``row`` and ``base`` -> their titles."""


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
    """The rows that a page shows.

    Args:
        noun: what a row is: ``pair``, ``answer`` or ``problem``.
        rows: reads the selected rows; a page reads them twice.
        fields: those of the filter language for the records.
    """

    noun: str
    rows: Callable[[], Iterator[Shown]]
    fields: Fields[Any]

    @property
    def outliers(self) -> list[OutlierKind]:
        """What makes a row an outlier, in the order of the index."""
        wrong = [OutlierKind("y+ wrong", with_choice("verdict", "wrong"))] if self.noun == "pair" else []
        largest = {
            "ratio": "Largest change ratio",
            "surprise": "Largest mean surprise",
            "growth": "Length grew most",
            "length": "Longest",
            "cost": "Most expensive",
        }
        return [
            OutlierKind("Damaged", with_choice("row", "damaged")),
            OutlierKind("Duplicate", with_choice("row", "duplicate")),
            OutlierKind("Stale decision", with_choice("decision", STALE)),
            *wrong,
            OutlierKind("y+ undecided" if wrong else "Undecided", with_choice("verdict", "undecided")),
            OutlierKind("Truncated", with_choice("finish", "length")),
            *(OutlierKind(title, by_number(name), NUMBERS[name].show) for name, title in largest.items()),
        ]

    def numbered(self) -> Iterator[tuple[int, Shown, RowFacts]]:
        """The rows with their numbers from 0, and facts with unique anchors."""
        seen: dict[str, int] = {}
        for number, row in enumerate(self.rows()):
            facts = self.facts(row)
            times = seen[facts.anchor] = seen.get(facts.anchor, 0) + 1
            yield number, row, facts if times == 1 else replace(facts, anchor=f"{facts.anchor}-{times}")

    def facts(self, row: Shown) -> RowFacts:
        """What the index, the filters and the order need to know about a row."""
        record = row.record
        if record is None:
            return RowFacts(_anchor(row.where), one_line(row.where), {"row": "damaged"})
        texts, numbers = self.fields.texts, self.fields.numbers
        choices = {name: _choice(texts[name](record)) for name in FILTERS if name in texts}
        choices["row"] = "ok" if row.duplicate_of is None else "duplicate"
        known = {name: _finite(numbers[name](record)) for name in NUMBERS if name in numbers}
        if isinstance(record, Pair) and record.rejected is None:
            known |= {"ratio": None, "first": None}
        if row.compared is not None:
            choices["base"] = row.compared.base.verdict
            length = len(row.compared.base.response)
            known["growth"] = len(row.compared.tuned.response) / length if length else None
        id, trial = getattr(record, "id", row.where), getattr(record, "trial", 0)
        anchor = _anchor(getattr(record, "key", (id, trial)))
        return RowFacts(
            anchor, _title(id, trial), choices, {name: value for name, value in known.items() if value is not None}
        )

    def card(self, row: Shown, known: RowFacts) -> Card:
        """What is shown of a row, given its facts."""
        if row.record is None:
            facts = [Fact("", "damaged", "wrong"), Fact("", one_line(row.damage or ""))]
            return Card(facts, html_pages.trusted(""), False, "", [("the line in the file", answer_markup(row.raw))])
        card = _card(row, known)
        if row.duplicate_of is None:
            return card
        duplicate = Fact("", f"duplicate key, first in line {row.duplicate_of}", "wrong")
        return replace(card, facts=[duplicate, *card.facts])


def _anchor(key: object) -> str:
    """The ``id`` of a row on the page; the same row has the same one on every page."""
    return f"row-{hashlib.sha256(repr(key).encode('utf-8', 'replace')).hexdigest()[:12]}"


def _title(id: str, trial: int) -> str:
    name = _clipped(one_line(id), LONG_FACT)
    return f"{name} · trial {trial}" if trial else name


def _clipped(value: str, most: int) -> str:
    return value if len(value) <= most else f"{value[: most - 1]}…"


def _choice(value: str | None) -> str:
    """The value of a filter, short enough for its list."""
    return "none" if not value else _clipped(one_line(value[: 2 * LONG_CHOICE]), LONG_CHOICE)


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
    return answer_markup(prompt, shown=LONG_PROMPT), len(prompt) < SHORT_PROMPT


def _card(row: Shown, known: RowFacts) -> Card:
    if row.compared is not None:
        return _compared_card(row.compared)
    return _pair_card(row.record, known) if isinstance(row.record, Pair) else _score_card(row.record)


def _pair_card(pair: Pair, known: RowFacts) -> Card:
    facts = []
    if pair.rejected is not None:
        note = "" if pair.change_ratio is not None else " on words"
        facts.append(Fact("change ratio", f"{pair_change_ratio(pair):.3f}{note}", "strong"))
    facts.append(Fact("y+", pair.verdict or "not graded", pair.verdict or ""))
    decision = known.choices.get("decision", "none")
    optional = {
        "decision": (None if decision == "none" else decision, "decision"),
        "oracle": (oracle_name(pair), ""),
        "cost": (cost_text(pair), ""),
        "source": (pair.source, ""),
    }
    facts += [
        Fact(name, _clipped(one_line(value), LONG_FACT), style) for name, (value, style) in optional.items() if value
    ]
    for name in ("surprise", "surprise_rejected"):
        if name in known.numbers:
            title = f"surprise of {'y+' if name == 'surprise' else 'y-'}"
            facts.append(Fact(title, NUMBERS[name].show(known.numbers[name])))
    heading = "" if pair.rejected is not None else "y+, the policy's own answer"
    return Card(facts, *_prompt(pair), pair.answer or "", [(heading, diff_markup(diff(pair.original, pair.chosen)))])


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
    note = _clipped(one_line(", ".join(notes)), LONG_FACT)
    facts = [Fact(name, score.verdict, score.verdict)]
    return [*facts, Fact("", note)] if note else facts
