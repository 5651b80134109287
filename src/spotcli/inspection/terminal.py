"""The overview and the pairs as text: in colour on a terminal, as plain lines in a pipe.

All text from the file is made harmless by ``console.safe`` and never read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spotcli.console import counted, one_line, safe
from spotcli.core.edits import Span, diff
from spotcli.inspection.diff_lines import MOST_COLUMNS, STYLES, TAB, blocks, fold, inline
from spotcli.inspection.overview import ReviewSummary
from spotcli.inspection.pair_facts import cost_text, cut_text, oracle_name, pair_change_ratio
from spotcli.inspection.shared_prompts import SharedLines, SharedPrompts
from spotcli.records import Pair, Problem

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

PROMPT_LINES = 8
"""Lines of a prompt shown in a list of pairs. A pair selected by its id shows the whole prompt."""

INDENT = 2
"""Blanks before the text of a row."""

TWO_COLUMNS = 110
"""Characters from which the overview has two columns."""

VERDICT_STYLES = {"right": "green", "wrong": "red", "undecided": "yellow"}


def print_overview(console: Console, summary: ReviewSummary) -> None:
    """Print the overview of the file: in one column, or in two on a wide terminal."""
    # In a pipe a line must stay one line, however long the path in it.
    console.print(overview(summary, console.width), soft_wrap=not console.is_terminal)


@dataclass(frozen=True)
class Layout:
    """How rows are printed."""

    width: int
    """Columns of text."""
    marked: bool
    """Write ``[-deleted-]`` and ``{+inserted+}``: there is no colour, and strike-through alone is invisible."""
    whole: bool
    """Whole prompts, and kept stretches that are not folded."""
    shared: SharedPrompts = field(default_factory=SharedPrompts)
    """What the prompts of the file begin with."""
    surprise: Callable[[Pair], str | None] = lambda pair: None
    """The mean surprise of a pair, if it is known."""

    @classmethod
    def on(cls, console: Console, *, whole: bool, shared: SharedPrompts) -> Layout:
        width = min(console.width - INDENT, MOST_COLUMNS) if console.is_terminal else MOST_COLUMNS
        marked = console.color_system is None or console.no_color
        return cls(max(width, 10), marked, whole, shared)

    def shared_lines(self, row: Problem) -> SharedLines | None:
        """The lines of a prompt that are shown as one."""
        return None if self.whole else self.shared.of(row)

    def wrapped(self, console: Console, parts: Iterable[Text]) -> list[Text]:
        """Each text as lines of ``width`` columns."""
        return [line for part in parts for line in part.wrap(console, self.width, tab_size=TAB) or [part]]


def show_pair(console: Console, pair: Pair, number: str, layout: Layout, notes: Sequence[Text] = ()) -> None:
    """Print one pair, with notes below its facts."""
    spans = diff(pair.original, pair.chosen)
    shared, surprise = layout.shared_lines(pair), layout.surprise(pair)
    title, *head = pair_head(pair, number, spans, whole=layout.whole, shared=shared, surprise=surprise)
    show_row(console, title, [*layout.wrapped(console, [*head, *notes]), *diff_part(spans, layout)])


def overview(summary: ReviewSummary, width: int) -> RenderableType:
    """The overview of a file of pairs; in two columns on a wide terminal."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((one_line(summary.path), "bold"), f"  {counted(summary.pairs, 'pair')}")
    if summary.matching < summary.pairs:
        title.append(f", {summary.matching:,} selected", style="yellow")
    ratios, facts = _ratio_lines(summary), [*_edit_lines(summary), *_count_lines(summary)]
    if not summary.matching:
        return Group(title, *facts, Text())
    if not ratios:
        return Group(title, Text(), *facts, Text())
    if width < TWO_COLUMNS:
        return Group(title, Text(), *ratios, Text(), *facts, Text())
    columns = Table.grid(padding=(0, 6, 0, 0))
    columns.add_row(Group(*ratios), Group(*facts))
    return Group(title, Text(), Padding(columns, 0), Text())


def _ratio_lines(summary: ReviewSummary) -> list[Text]:
    """The change ratios: figures, a histogram, warnings."""
    from rich.text import Text

    if summary.ratio_median is None:
        return []
    highest = max(count for _, _, count in summary.histogram)
    figures = f"median {summary.ratio_median:.3f}  mean {summary.ratio_mean:.3f}  max {summary.ratio_max:.3f}"
    lines = [Text.assemble(("change ratio", "bold"), f"  {figures}")]
    for low, high, count in summary.shown_bins:
        style = "red" if low >= summary.gamma else "cyan"
        bar = "█" * round(32 * count / highest) or ("▏" if count else "")
        lines.append(Text.assemble((f"{low:.2f}–{high:.2f} ", "dim"), (f"{bar:<32}", style), f" {count:,}"))
    if summary.above_gamma:
        lines.append(Text(f"{counted(summary.above_gamma, 'pair')} above gamma {summary.gamma:g}", style="red"))
    if summary.unmeasured:
        ratios = counted(summary.unmeasured, "ratio")
        lines.append(Text(f"{ratios} missing in the file, computed on words", style="yellow"))
    return lines


def _edit_lines(summary: ReviewSummary) -> list[Text]:
    """Where the first edit begins."""
    from rich.text import Text

    if summary.first_edit_median is None or summary.shared_prefix is None:
        return []
    highest = max(summary.first_edits)
    bars = "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // highest)] for count in summary.first_edits)
    return [
        Text.assemble(("first edit     ", "bold"), (f"▕{bars}▏", "cyan"), " by tenths of y-"),
        Text(f"{'':15}median at {summary.first_edit_median:.0%} of y-"),
        Text.assemble(("shared prefix  ", "bold"), f"{summary.shared_prefix:.0%} of y+"),
    ]


def _count_lines(summary: ReviewSummary) -> list[Text]:
    """Verdicts, oracles and reviews of the pairs, and the counts of rectify."""
    from rich.text import Text

    lines = []
    for name, counts in (
        ("verdict of y+", summary.verdicts),
        ("oracle", summary.oracles),
        ("review", {} if summary.reviews.keys() == {"none"} else summary.reviews),
    ):
        if counts:
            listed = Text(", ").join(
                Text.assemble((one_line(key), VERDICT_STYLES.get(key, "")), f" {count:,}")
                for key, count in counts.items()
            )
            lines.append(Text.assemble((f"{name:<15}", "bold"), listed))
    if summary.without_rejected:
        rows = counted(summary.without_rejected, "row")
        lines.append(Text(f"{rows} without y-: the policy's own right answers"))
    if summary.unchanged:
        lines.append(Text(f"{counted(summary.unchanged, 'pair')} with identical y- and y+", style="red"))
    if outcomes := summary.outcomes:
        lines += [Text(), Text("from samples to pairs", style="bold")]
        name_width, value_width = max(map(len, outcomes)), max(map(len, outcomes.values()))
        lines += [Text(f"{name:<{name_width}}  {value:>{value_width}}") for name, value in outcomes.items()]
    return lines


def show_row(console: Console, title: Text, parts: Sequence[Text]) -> None:
    """Print one row, whose parts fit into the width."""
    if console.is_terminal:
        console.print(*_framed([title, *parts]), sep="\n")
        return
    from rich.segment import Segment, Segments

    # Model text is indented, so that it cannot imitate the head of a row.
    lines = [
        f"== {title.plain}",
        *(f"{' ' * INDENT}{line}" if line else "" for part in parts for line in part.plain.split("\n")),
        "",
    ]
    console.print(Segments([Segment("\n".join(lines) + "\n")]), end="", soft_wrap=True)


def _framed(parts: list[Text]) -> list[RenderableType]:
    """The parts of a pair on a terminal: the title in a rule, the rest indented."""
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.text import Text

    title, *rest = parts
    return [Rule(title, align="left", style="blue"), *(Padding(part, (0, 0, 0, INDENT)) for part in rest), Text()]


def pair_head(
    pair: Pair,
    number: str,
    spans: list[Span],
    *,
    whole: bool,
    shared: SharedLines | None = None,
    surprise: str | None = None,
) -> list[Text]:
    """Title, facts and prompt of one pair, whose diff has these spans.

    Args:
        surprise: the mean surprise of y+ and y-, if it is known.
    """
    from rich.text import Text

    title = Text.assemble(
        (number, "dim"), "  ", (one_line(pair.id), "bold"), f"  trial {pair.trial}" if pair.trial else ""
    )
    ratio = f"{pair_change_ratio(pair):.3f}" + ("" if pair.change_ratio is not None else " (on words)")
    facts = {
        "change ratio": (ratio if pair.rejected is not None else None, "cyan"),
        "surprise": (surprise, "cyan"),
        "y+": (pair.verdict or "not graded", VERDICT_STYLES.get(pair.verdict or "none", "")),
        "oracle": (oracle_name(pair), ""),
        "cost": (cost_text(pair), ""),
        "review": (pair.review, "magenta"),
        "edits": (_edit_size(spans) if pair.rejected is not None else None, ""),
    }
    parts = [fact_line(facts)]
    parts += [
        fact_line({name: (text, "")}) for name, text in (("source", pair.source), ("answer", pair.answer)) if text
    ]
    if cut := cut_text(pair):
        parts.append(Text(cut))
    parts.append(Text.assemble(("prompt", "dim"), " ", prompt_lines(pair, whole, shared)))
    return [title, *parts]


def fact_line(facts: Mapping[str, tuple[str | None, str]]) -> Text:
    """One line of names, values and the styles of the values; facts without a value are left out."""
    from rich.text import Text

    known = [
        Text.assemble((name, "dim"), " ", (one_line(text), style)) for name, (text, style) in facts.items() if text
    ]
    return Text("   ").join(known)


def prompt_lines(row: Problem, whole: bool, shared: SharedLines | None = None) -> Text:
    """All turns of the prompt, or the first lines of the last turn and how much is hidden.

    Args:
        shared: the lines that are shown as one; what follows them is shown.
    """
    from rich.text import Text

    turns = row.messages
    if whole and len(turns) > 1:
        return Text("\n").join(
            Text.assemble((one_line(turn["role"]), "dim"), f" {safe(turn['content'])}") for turn in turns
        )
    lines = safe(turns[-1]["content"]).split("\n")
    text = Text()
    if shared is not None:
        lines = lines[shared.count :]
        text.append(f"{shared}\n", style="dim")
    text.append("\n".join(lines if whole else lines[:PROMPT_LINES]))
    hidden = 0 if whole else len(lines) - PROMPT_LINES
    notes = [counted(hidden, "more line")] if hidden > 0 else []
    notes += [counted(len(turns) - 1, "earlier turn")] if len(turns) > 1 else []
    return text.append(f"  ({', '.join(notes)})", style="dim") if notes else text


def _edit_size(spans: list[Span]) -> str:
    """The number of edits, and of the words that they delete and insert."""
    edits = sum(
        span.kind != "kept" and (index == 0 or spans[index - 1].kind == "kept") for index, span in enumerate(spans)
    )
    deleted, inserted = (
        sum(not piece.isspace() for span in spans if span.kind == kind for piece in span.pieces)
        for kind in ("deleted", "inserted")
    )
    return f"{edits} (−{deleted} +{inserted} words)"


def diff_part(spans: list[Span], layout: Layout) -> list[Text]:
    """An empty line, and both answers in one text; kept stretches are folded around edits, unless all is shown."""
    from rich.text import Text

    lines = inline(blocks(spans), layout.width, marked=layout.marked)
    texts = [Text()]
    for line in lines if layout.whole else fold(lines):
        if line.hidden:
            texts.append(Text(line.note, style="dim"))
        else:
            texts.append(Text.assemble(*((part.text, STYLES[part.kind]) for part in line.parts)))
    return texts
