"""What a page shows of each row: facts, prompt, and the answers or their diff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from spotcli import html_pages
from spotcli.console import one_line
from spotcli.core.edits import diff
from spotcli.inspection.page.diff_markup import answer_markup, diff_markup, fold_markup
from spotcli.inspection.page.outliers import RowFacts
from spotcli.inspection.page.page_rows import LONG_FACT, NUMBERS, Shown, clipped
from spotcli.inspection.pair_facts import cost_text, dollars, oracle_name, pair_change_ratio
from spotcli.inspection.row_fields import model_name, sample_cost
from spotcli.inspection.row_kinds import entry_name
from spotcli.inspection.shared_prompts import SharedPrompts
from spotcli.records import Pair, Problem, Sample, Score, UngradedSample
from spotcli.reply_entries import MoneyEntry, ReplyEntry
from spotcli.reply_entries import RequestEntry as Reply
from spotcli.score_changes import ComparedAnswers

if TYPE_CHECKING:
    from markupsafe import Markup

SHORT_PROMPT = 600
"""Characters up to which a prompt is shown; a longer one is folded."""
LONG_PROMPT = 12_000
"""Characters of an unfolded prompt of which the middle stays folded."""


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
    answers: Sequence[tuple[str, Markup]]
    """The answers, or the diff of both, with their headings."""
    prompt: Markup | None = None
    opened: bool = False
    """Whether the prompt is shown without being asked for."""
    reference: str = ""
    number: int = 0
    """In the order of the page, from 0."""
    head: RowFacts = field(default_factory=lambda: RowFacts("", ""))


class Prompts:
    """The prompts of a page: lines that many prompts begin with are written once, and named in the other rows."""

    def __init__(self, shared: SharedPrompts) -> None:
        self._shared = shared
        self._written: set[str] = set()

    def of(self, row: Problem) -> tuple[Markup, bool]:
        """All turns of a prompt as HTML, and whether it is short."""
        *turns, last = row.messages
        named = len(row.messages) > 1
        before = "".join(f"{turn['role']}: {turn['content']}\n\n" for turn in turns)
        begin = f"{last['role']}: " if named else ""
        lines = self._shared.of(row)
        if lines is None:
            prompt = f"{before}{begin}{last['content']}"
            return answer_markup(prompt, shown=LONG_PROMPT), len(prompt) < SHORT_PROMPT
        parts = last["content"].split("\n", lines.count)
        common, own = "\n".join(parts[:-1]), parts[-1]
        folded = html_pages.trusted(f"{html_pages.text(str(lines))}\n")
        if common not in self._written:
            self._written.add(common)
            folded = fold_markup(str(lines), f"{common}\n")
        prompt = f"{before}{begin}"
        markup = answer_markup(prompt, shown=LONG_PROMPT) + folded + answer_markup(own, shown=LONG_PROMPT)
        return markup, len(prompt) + len(own) < SHORT_PROMPT


def card(row: Shown, known: RowFacts, prompts: Prompts) -> Card:
    """What is shown of a row, given its facts."""
    record = row.record
    if record is None:
        facts = [Fact("", "damaged", "wrong"), Fact("", one_line(row.damage or ""))]
        return Card(facts, [("the line in the file", answer_markup(row.raw))])
    if row.compared is not None:
        shown = _compared_card(row.compared)
    elif isinstance(record, Pair):
        shown = _pair_card(record, known)
    elif isinstance(record, UngradedSample | Score):
        shown = _answer_card(record)
    else:
        shown = _reply_card(record)
    if isinstance(record, Problem):
        prompt, opened = prompts.of(record)
        shown = replace(shown, prompt=prompt, opened=opened, reference=record.answer or "")
    if row.duplicate_of is None:
        return shown
    return replace(shown, facts=[Fact("", f"duplicate key, first in line {row.duplicate_of}", "wrong"), *shown.facts])


def _facts(values: Mapping[str, str | None], styles: Mapping[str, str] | None = None) -> list[Fact]:
    """Facts that are known, by their names."""
    styles = styles or {}
    return [
        Fact(name, clipped(one_line(value), LONG_FACT), styles.get(name, "")) for name, value in values.items() if value
    ]


def _pair_card(pair: Pair, known: RowFacts) -> Card:
    decision = known.choices.get("decision", "none")
    ratio = f"{pair_change_ratio(pair):.3f}" + ("" if pair.change_ratio is not None else " on words")
    values = {
        "change ratio": None if pair.rejected is None else ratio,
        "y+": pair.verdict or "not graded",
        "decision": None if decision == "none" else decision,
        "oracle": oracle_name(pair),
        "cost": cost_text(pair),
        "source": pair.source,
    }
    for name, title in (("surprise", "surprise of y+"), ("surprise_rejected", "surprise of y-")):
        if name in known.numbers:
            values[title] = NUMBERS[name].show(known.numbers[name])
    facts = _facts(values, {"change ratio": "strong", "y+": pair.verdict or "", "decision": "decision"})
    heading = "" if pair.rejected is not None else "y+, the policy's own answer"
    return Card(facts, [(heading, diff_markup(diff(pair.original, pair.chosen)))])


def _answer_card(answer: UngradedSample | Score) -> Card:
    if isinstance(answer, Score):
        return Card(
            [*_facts({"task": answer.task}), *_verdict("verdict", answer)], [("", answer_markup(answer.response))]
        )
    facts = _verdict("verdict", answer) if isinstance(answer, Sample) else _facts({"verdict": "not graded"})
    facts += _facts({"model": model_name(answer), "cost": dollars(sample_cost(answer)), "source": answer.source})
    return Card(facts, [("", answer_markup(answer.response))])


def _reply_card(entry: Reply) -> Card:
    facts = _facts({"entry": entry_name(entry)})
    if isinstance(entry, MoneyEntry):
        return Card([*facts, *_facts({"reserved": dollars(entry.reserved)})], [])
    facts += _facts({"oracle": entry.oracle, "attempt": str(entry.attempt)})
    if not isinstance(entry, ReplyEntry):
        return Card(facts, [])
    finish = "truncated" if entry.finish_reason == "length" else None
    facts += _facts({"form": entry.mode, "model": entry.model, "cost": dollars(entry.cost), "finish": finish})
    facts += _facts({"no correction": entry.reason}, {"no correction": "undecided"})
    reasoning = [("reasoning", answer_markup(entry.reasoning))] if entry.reasoning else []
    return Card(facts, [*reasoning, ("reply" if reasoning else "", answer_markup(entry.text))])


def _compared_card(row: ComparedAnswers) -> Card:
    problem = row.problem
    facts = [Fact("", problem.change, {"won": "right", "lost": "wrong"}.get(problem.change, "strong"))]
    right = f"{problem.base_right} to {problem.tuned_right} of {problem.trials}" if problem.trials > 1 else None
    facts += _facts({"task": problem.task, "right": right})
    facts += [*_verdict("base", row.base), *_verdict("tuned", row.tuned)]
    old, new = row.base.response, row.tuned.response
    spans = html_pages.similar_diff(old, new)
    if spans is not None:
        return Card(facts, [("from the base model's answer to the tuned model's", diff_markup(spans))])
    return Card(facts, [("base answer", answer_markup(old)), ("tuned answer", answer_markup(new))])


def _verdict(name: str, answer: Sample | Score) -> list[Fact]:
    """Verdict, reason and extracted answer of one model."""
    notes = ["truncated"] if answer.finish_reason == "length" else [answer.reason] if answer.reason else []
    notes += [f"extracted {answer.extracted}"] if answer.extracted is not None else []
    return [Fact(name, answer.verdict, answer.verdict), *_facts({"": ", ".join(notes)})]
