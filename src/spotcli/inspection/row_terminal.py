"""Rows of every kind as text, and the overview of a file with any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spotcli.console import counted, one_line, safe
from spotcli.inspection import score_terminal, terminal
from spotcli.inspection.answer_overview import Lengths, ReplySummary, SampleSummary
from spotcli.inspection.entries import Entries, Entry
from spotcli.inspection.file_overview import FileSummary, KindSummary, MixedSummary
from spotcli.inspection.overview import ReviewSummary
from spotcli.inspection.pair_facts import dollars
from spotcli.inspection.row_fields import model_name, sample_cost, token_count
from spotcli.inspection.row_kinds import REPLIES
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.inspection.shared_prompts import SharedLines
from spotcli.inspection.terminal import VERDICT_STYLES, Layout, fact_line, prompt_lines
from spotcli.records import Score, UngradedSample
from spotcli.reply_entries import MoneyEntry, UndoEntry
from spotcli.reply_entries import RequestEntry as Reply

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


def show_entry(console: Console, entries: Entries, row: int, number: str, layout: Layout, *, compare: bool) -> None:
    """Print one row as what it is.

    Args:
        number: its place among the rows that are printed.
        compare: show an answer of an evaluation as a diff from the base model's.
    """
    pair = entries.shown(row)
    if pair is not None:
        terminal.show_pair(console, pair, number, layout, duplicate_note(entries, row))
        return
    answers = entries.compared(row) if compare else None
    if answers is not None:
        score_terminal.show_change(console, answers, number, layout)
        return
    record = entries.entry(row).record
    shared = layout.shared_lines(record) if isinstance(record, Score | UngradedSample) else None
    title, *parts = entry_parts(entries, row, number, whole=layout.whole, shared=shared)
    terminal.show_row(console, title, layout.wrapped(console, parts))


def entry_parts(
    entries: Entries, row: int, number: str, *, whole: bool, shared: SharedLines | None = None
) -> list[Text]:
    """Title and parts of one row that is shown without a diff."""
    entry = entries.entry(row)
    notes = duplicate_note(entries, row)
    if entry.score is not None:
        title, facts, *parts = score_terminal.score_parts(entry.score, number, whole=whole, shared=shared)
        return [title, facts, *notes, *parts]
    if entry.sample is not None:
        title, facts, *parts = _sample_parts(entry.sample, number, whole=whole, shared=shared)
        return [title, facts, *notes, *parts]
    if entry.reply is not None:
        title, facts, *parts = _reply_parts(entry.reply, number)
        return [title, facts, *notes, *parts]
    return _damaged_parts(entry, number)


def duplicate_note(entries: Entries, row: int) -> list[Text]:
    """A note about a row whose key an earlier row has."""
    from rich.text import Text

    if row not in entries.duplicates:
        return []
    effect = "; training leaves this row out" if entries.entry(row).pair is not None else ""
    return [Text(f"duplicate key: first in line {entries.duplicates[row]}{effect}", style="yellow")]


def _damaged_parts(entry: Entry, number: str) -> list[Text]:
    from rich.text import Text

    title = Text.assemble((number, "dim"), "  ", (one_line(entry.where), "bold"), "  damaged")
    return [title, Text(one_line(entry.damage or ""), style="yellow"), Text(), Text(entry.raw.rstrip("\n␊"))]


def _sample_parts(sample: UngradedSample, number: str, *, whole: bool, shared: SharedLines | None) -> list[Text]:
    """Title, facts, prompt and response of an answer of the policy."""
    from rich.text import Text

    title = Text.assemble((number, "dim"), "  ", (one_line(sample.id), "bold"), f"  trial {sample.trial}")
    verdict = getattr(sample, "verdict", None)
    tokens = token_count(sample)
    facts = {
        "verdict": (verdict or "not graded", VERDICT_STYLES.get(verdict or "", "")),
        "extracted": (getattr(sample, "extracted", None), "cyan"),
        "answer": (sample.answer, ""),
        "reason": (getattr(sample, "reason", None), ""),
        "finish": ("truncated" if sample.finish_reason == "length" else None, "yellow"),
    }
    more = {
        "source": (sample.source, ""),
        "model": (model_name(sample), ""),
        "length": (counted(len(sample.response), "character"), ""),
        "tokens": (None if tokens is None else f"{tokens:,}", ""),
        "cost": (dollars(sample_cost(sample)), ""),
    }
    prompt = Text.assemble(("prompt", "dim"), " ", prompt_lines(sample, whole, shared))
    return [title, fact_line(facts), fact_line(more), prompt, Text(), Text(safe(sample.response))]


def _reply_parts(entry: Reply, number: str) -> list[Text]:
    """Title, facts and text of an entry of an oracle's journal."""
    from rich.text import Text

    if isinstance(entry, MoneyEntry):
        title = Text.assemble((number, "dim"), "  ", (one_line(entry.key), "bold"), f"  {entry.kind}")
        meaning = "was reserved for this request" if entry.kind == "sent" else "was returned: the request cost nothing"
        return [title, Text(f"{dollars(entry.reserved)} {meaning}")]
    title = Text.assemble((number, "dim"), "  ", (one_line(entry.id), "bold"), f"  trial {entry.trial}")
    title.append(f"  attempt {entry.attempt}")
    if isinstance(entry, UndoEntry):
        return [title, Text("undo: a person took this reply back"), fact_line({"oracle": (entry.oracle, "")})]
    facts = {
        "oracle": (entry.oracle, ""),
        "model": (entry.model, ""),
        "mode": (entry.mode, ""),
        "declined": (entry.reason, "yellow"),
        "finish": (None if entry.finish_reason == "stop" else entry.finish_reason, "yellow"),
    }
    tokens = {
        name: count for name, count in entry.usage.items() if isinstance(count, int) and not isinstance(count, bool)
    }
    more = {
        "cost": (dollars(entry.cost) or "unknown", ""),
        "tokens": (", ".join(f"{name} {count:,}" for name, count in tokens.items()), ""),
        "seconds": (f"{entry.seconds:.1f}" if entry.seconds else None, ""),
        "at": (entry.at, ""),
    }
    parts = [title, fact_line(facts), fact_line(more)]
    if entry.reasoning:
        parts += [Text(), Text("reasoning", style="dim"), Text(safe(entry.reasoning), style="dim")]
    return [*parts, Text(), Text(safe(entry.text))]


def print_file_overview(console: Console, summary: FileSummary) -> None:
    """Print the overview of a file, as ``file_overview`` returns it."""
    # In a pipe a line must stay one line, however long the path in it.
    console.print(file_overview(summary, console.width), soft_wrap=not console.is_terminal)


def file_overview(summary: FileSummary, width: int) -> RenderableType:
    """The overview of a file: of each kind of rows in it, and how many rows are damaged or duplicate."""
    from rich.console import Group
    from rich.text import Text

    parts = [summary] if not isinstance(summary, MixedSummary) else [*summary.kinds.values()]
    shown = [_kind_overview(part, width) for part in parts]
    if isinstance(summary, MixedSummary):
        rows = counted(summary.rows, "row")
        shown.insert(0, Text.assemble((one_line(summary.path), "bold"), f"  {rows} of {len(parts)} kinds\n"))
    notes = [
        f"{counted(count, 'row')} {name}"
        for count, name in ((summary.damaged, "damaged"), (summary.duplicates, "with a duplicate key"))
        if count
    ]
    return Group(*shown, *([Text(f"{', '.join(notes)}\n", style="yellow")] if notes else []))


def _kind_overview(summary: KindSummary, width: int) -> RenderableType:
    if isinstance(summary, ReviewSummary):
        return terminal.overview(summary, width)
    if isinstance(summary, ScoreSummary):
        return score_terminal.score_overview(summary)
    return _sample_overview(summary) if isinstance(summary, SampleSummary) else _reply_overview(summary)


def _sample_overview(summary: SampleSummary) -> Text:
    """Verdicts, ends and lengths of samples."""
    lines = [_title(summary.path, summary.samples, "sample", summary.matching)]
    solved = f"{summary.problems:,}, {summary.solved:,} with a right answer"
    for name, value in (
        ("problems", solved),
        ("verdict", _listed(summary.verdicts)),
        ("undecided", _listed(summary.reasons)),
        ("finish", _listed(_finish(summary.finish))),
        ("characters", _lengths(summary.characters)),
        ("tokens", _lengths(summary.tokens)),
        ("cost", dollars(summary.cost)),
        ("model", _listed({} if summary.models.keys() == {"none"} else summary.models)),
    ):
        lines += _line(name, value) if summary.matching else []
    return _joined(lines)


def _reply_overview(summary: ReplySummary) -> Text:
    """Oracles, ends, lengths and cost of replies."""
    lines = [_title(summary.path, summary.entries, "journal entry", summary.matching)]
    cost = dollars(summary.cost)
    if summary.unpriced:
        unpriced = counted(summary.unpriced, "reply").replace("replys", "replies")
        cost = f"{cost or 'unknown'} ({unpriced} without a known price)"
    for name, value in (
        (REPLIES, _listed(summary.kinds)),
        ("wrong answers", f"{summary.answers:,}" if summary.answers else None),
        ("oracle", _listed(summary.oracles)),
        ("model", _listed({} if summary.models.keys() == {"none"} else summary.models)),
        ("mode", _listed(summary.modes)),
        ("attempt", _listed(summary.attempts)),
        ("declined", _listed(summary.declined)),
        ("finish", _listed(_finish(summary.finish))),
        ("characters", _lengths(summary.characters)),
        ("tokens", _listed(summary.tokens)),
        ("cost", cost),
    ):
        lines += _line(name, value) if summary.matching else []
    return _joined(lines)


def _title(path: str, count: int, noun: str, matching: int) -> Text:
    from rich.text import Text

    rows = counted(count, noun, noun.replace("entry", "entries") + ("" if noun.endswith("entry") else "s"))
    title = Text.assemble((one_line(path), "bold"), f"  {rows}")
    return title.append(f", {matching:,} selected", style="yellow") if matching < count else title


def _line(name: str, value: str | None) -> list[Text]:
    from rich.text import Text

    return [Text.assemble((f"{name:<15}", "bold"), f" {value}")] if value else []


def _joined(lines: list[Text]) -> Text:
    from rich.text import Text

    return Text("\n").join([*lines, Text()])


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{one_line(key)} {count:,}" for key, count in counts.items())


def _finish(counts: Mapping[str, int]) -> dict[str, int]:
    """Ends of answers by the words that are shown."""
    return {"truncated" if name == "length" else name: count for name, count in counts.items()}


def _lengths(lengths: Lengths | None) -> str | None:
    if lengths is None:
        return None
    return f"median {lengths.median:,.0f}  mean {lengths.mean:,.0f}  max {lengths.largest:,}"
