"""pairs -> terminal: what the corrections changed, before anything is trained on them.

    spot inspect data.jsonl --where 'ratio>0.3'

First the whole file: how large the changes are, where they begin, why rows did not become pairs. Then pair after pair
as a diff; on a terminal one a screen, in a pipe as plain text with ``[-deleted-]`` and ``{+inserted+}``. The file is
streamed twice and never held. Everything in it is foreign text and is shown, never obeyed. Left out on purpose:
changing the file.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from spotcli import jsonl, outputs
from spotcli.console import out, safe, say
from spotcli.core.edits import Span, diff, shared_prefix
from spotcli.errors import DataError, UserError
from spotcli.inspection import app
from spotcli.inspection.pair_facts import oracle_name, ratio_of
from spotcli.inspection.pair_filter import parse
from spotcli.recipe import Recipe
from spotcli.records import Pair, Sample

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment
    from rich.style import Style
    from rich.text import Text

HTML_LIMIT = 500
"""Pairs on a page unless a limit is given: more make it slow to open."""
PROMPT_LINES = 8
"""Of a prompt, in a list of pairs; one pair alone shows all of it."""


@dataclass(frozen=True)
class ReviewSummary:
    """What ``spot inspect`` saw; everything but ``pairs`` and ``counts`` is of the pairs that match."""

    path: str
    pairs: int
    """In the file."""
    matching: int
    """Chosen by ``--id`` and ``--where``; all of them without."""
    gamma: float
    """The largest change ratio that the recipe keeps."""
    above_gamma: int
    unmeasured: int
    """Pairs without a change ratio in the file; theirs is measured in words and signs."""
    alone: int
    """Rows without y-: right answers of the policy's own. Ratios and edits are told of the others."""
    unchanged: int
    """Pairs whose correction is the answer itself: nothing can be learned from them."""
    ratio_median: float | None
    ratio_mean: float | None
    ratio_max: float | None
    histogram: list[tuple[float, float, int]]
    """Change ratios: from, up to, pairs."""
    first_edit_median: float | None
    """Where the first edit begins, as a share of y-."""
    first_edits: list[int]
    """Pairs whose first edit begins in each tenth of y-."""
    shared_prefix: float | None
    """The share of y+ (in characters, over all pairs) that stands before the first edit."""
    verdicts: dict[str, int]
    reviews: dict[str, int]
    oracles: dict[str, int]
    counts: dict[str, Any]
    """What the file's meta data say of rows that did and did not become pairs."""
    html: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def outcomes(self) -> dict[str, str]:
        """``counts`` on one level, fit for reading."""
        return dict(_flat(self.counts))


def review(
    recipe: Recipe,
    *,
    data: Path,
    folder: Path = Path(),
    id: str | None = None,
    where: str | None = None,
    limit: int | None = None,
    html: Path | None = None,
    quiet: bool = False,
) -> ReviewSummary:
    """Show a file of pairs; paths are relative to ``folder``.

    Args:
        id: only this pair (all its trials), with its whole prompt and without the overview.
        where: only the pairs that a term or several hold for, see ``spotcli.inspection.pair_filter``.
        limit: at most so many pairs after the overview; 0 is the overview alone.
        html: write a page that needs nothing else, instead of showing the pairs here.
        quiet: print nothing, for those who only want the summary.

    Raises:
        UserError: no such file or id; an expression that can't be read; samples instead of pairs.
        DataError: a row that is no pair.
    """
    path = folder / data
    chosen = _chooser(id, where)
    renamed: dict[str, str] = {}
    overview = _Overview(recipe.rectify.gamma)
    for pair in _pairs(path, renamed):
        overview.add(pair, chosen(pair))
    if renamed:
        say(f"{path}: read " + ", ".join(f"'{theirs}' as '{ours}'" for theirs, ours in renamed.items()))
    if id is not None and not overview.matching:
        raise UserError(f"there is no pair with the id {id!r}", where=str(path), cure=_alike(path, id, where))
    summary = overview.summary(path, outputs.read_meta(path).get("counts") or {}, html)

    def shown(most: int | None) -> Iterator[Pair]:
        return islice(filter(chosen, _pairs(path)), most)

    if html is not None:
        from spotcli.inspection.html_page import write_page

        most = HTML_LIMIT if limit is None else limit
        write_page(folder / html, summary, shown(most))
        if summary.matching > most:
            say(f"{folder / html}: the first {most} of {summary.matching} pairs; --limit sets how many")
    if not quiet:
        # Rich ends the process when the reader of a pipe leaves early, as `head` does; here that is no error.
        with suppress(SystemExit):
            _show(summary, shown(limit), limit, alone=id is not None, pairs_too=html is None)
    return summary


def _pairs(path: Path, renamed: dict[str, str] | None = None) -> Iterator[Pair]:
    """The pairs of a file; a file of samples is told from a broken one."""
    pairs = jsonl.read(path, Pair, renamed=renamed)
    try:
        first = next(pairs, None)
    except DataError:
        try:
            next(jsonl.read(path, Sample))
        except DataError:
            pass
        else:
            raise UserError(
                "these are samples, not pairs: nothing has been corrected yet",
                where=str(path),
                cure=f"spot rectify {path} --oracle ORACLE, then spot inspect what it writes",
            ) from None
        raise
    if first is not None:
        yield first
        yield from pairs


def _chooser(id: str | None, where: str | None) -> Callable[[Pair], bool]:
    test = parse(where) if where is not None else None
    return lambda pair: (id is None or pair.id == id) and (test is None or test(pair))


def _alike(path: Path, id: str, where: str | None) -> str:
    if any(pair.id == id for pair in _pairs(path)):
        return f"there is one, and it does not match {where!r}"
    near = list(islice((pair.id for pair in _pairs(path) if id.casefold() in pair.id.casefold()), 3))
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "--where 'id~PART' finds pairs by a part of it"


class _Overview:
    """Totals that grow pair by pair; of each pair only two numbers are kept."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.pairs = self.matching = self.unmeasured = self.alone = self.unchanged = 0
        self.shared = self.length = 0
        self.ratios, self.firsts = array("d"), array("d")
        self.verdicts: Counter[str] = Counter()
        self.reviews: Counter[str] = Counter()
        self.oracles: Counter[str] = Counter()

    def add(self, pair: Pair, matches: bool) -> None:
        self.pairs += 1
        if not matches:
            return
        self.matching += 1
        if pair.rejected is None:
            self.alone += 1
        else:
            self._add_edit(pair, pair.rejected)
        self.verdicts[pair.verdict or "none"] += 1
        self.reviews[pair.review or "none"] += 1
        self.oracles[oracle_name(pair) or "none"] += 1

    def _add_edit(self, pair: Pair, rejected: str) -> None:
        self.unmeasured += pair.change_ratio is None
        self.ratios.append(ratio_of(pair))
        if rejected == pair.chosen:
            self.unchanged += 1
        else:
            shared = shared_prefix(rejected, pair.chosen)
            self.firsts.append(shared / len(rejected))
            self.shared += shared
            self.length += len(pair.chosen)

    def summary(self, path: Path, counts: Mapping[str, Any], html: Path | None) -> ReviewSummary:
        tenths = Counter(min(int(first * 10), 9) for first in self.firsts)
        return ReviewSummary(
            path=str(path),
            pairs=self.pairs,
            matching=self.matching,
            gamma=self.gamma,
            above_gamma=sum(ratio > self.gamma for ratio in self.ratios),
            unmeasured=self.unmeasured,
            alone=self.alone,
            unchanged=self.unchanged,
            ratio_median=median(self.ratios) if self.ratios else None,
            ratio_mean=sum(self.ratios) / len(self.ratios) if self.ratios else None,
            ratio_max=max(self.ratios, default=None),
            histogram=histogram(self.ratios),
            first_edit_median=median(self.firsts) if self.firsts else None,
            first_edits=[tenths[place] for place in range(10)],
            shared_prefix=self.shared / self.length if self.length else None,
            verdicts=dict(self.verdicts.most_common()),
            reviews=dict(self.reviews.most_common()),
            oracles=dict(self.oracles.most_common()),
            counts=dict(counts),
            html=None if html is None else str(html),
        )


def histogram(ratios: array[float]) -> list[tuple[float, float, int]]:
    """Counts in equal steps from 0, as fine as sixteen steps allow; a border belongs to the step above."""
    if not ratios:
        return []
    hundredths = next(step for step in (1, 2, 5, 10) if max(ratios) < 0.16 * step)
    # A ratio of 0.3 is 0.29999999999999998 or so; without the hair it would fall below its border.
    places = Counter(min(int(ratio * 100 / hundredths + 1e-9), 100 // hundredths - 1) for ratio in ratios)
    steps = range(max(places) + 1)
    return [(place * hundredths / 100, (place + 1) * hundredths / 100, places[place]) for place in steps]


def _show(summary: ReviewSummary, pairs: Iterator[Pair], limit: int | None, *, alone: bool, pairs_too: bool) -> None:
    console = out()
    if not alone:
        # Who reads a pipe wants a line to stay a line, however long the path in it.
        console.print(_overview(summary, console.width), soft_wrap=not console.is_terminal)
    if not pairs_too:
        console.print(_line(f"written: {summary.html}"))
        return
    total = summary.matching if limit is None else min(limit, summary.matching)
    # Without colour the two sides of an edit need marks; strike-through alone can't be told from the rest in a pipe.
    marked = console.color_system is None or console.no_color
    if alone or not console.is_terminal or not app.usable():
        for number, pair in enumerate(pairs, 1):
            _print_pair(console, pair, f"{number}/{total}", marked=marked, whole=alone)
    elif total:
        from rich.console import Group

        pages = (
            Group(*_terminal(_pair(pair, f"{number}/{total}", marked=marked, whole=False)))
            for number, pair in enumerate(pairs, 1)
        )
        question = f"enter shows the {_many(total, 'pair')} one by one, any other key leaves "
        app.page(console, pages, total, question=question, is_edit=_is_edit)


def _overview(summary: ReviewSummary, width: int) -> RenderableType:
    """The whole file: one column, or two where they fit."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((_line(summary.path), "bold"), f"  {_many(summary.pairs, 'pair')}")
    if summary.matching < summary.pairs:
        title.append(f", {summary.matching:,} match", style="yellow")
    ratios, facts = _ratio_lines(summary), _fact_lines(summary)
    if not summary.matching:
        return Group(title, *facts, Text())
    if width < 110:
        return Group(title, Text(), *ratios, Text(), *facts, Text())
    both = Table.grid(padding=(0, 6, 0, 0))
    both.add_row(Group(*ratios), Group(*facts))
    return Group(title, Text(), Padding(both, 0), Text())


def _ratio_lines(summary: ReviewSummary) -> list[Text]:
    from rich.text import Text

    if summary.ratio_median is None:
        return []
    most = max(count for _, _, count in summary.histogram)
    figures = f"median {summary.ratio_median:.3f}  mean {summary.ratio_mean:.3f}  max {summary.ratio_max:.3f}"
    lines = [Text.assemble(("change ratio", "bold"), f"  {figures}")]
    for low, high, count in summary.histogram:
        style = "red" if low >= summary.gamma else "cyan"
        bar = "█" * round(32 * count / most) or ("▏" if count else "")
        lines.append(Text.assemble((f"{low:.2f}–{high:.2f} ", "dim"), (f"{bar:<32}", style), f" {count:,}"))
    if summary.above_gamma:
        lines.append(Text(f"{_many(summary.above_gamma, 'pair')} above gamma {summary.gamma:g}", style="red"))
    if summary.unmeasured:
        lines.append(Text(f"{_many(summary.unmeasured, 'ratio')} measured here, in words and signs", style="yellow"))
    return lines


def _fact_lines(summary: ReviewSummary) -> list[Text]:
    from rich.text import Text

    lines = []
    if summary.first_edit_median is not None and summary.shared_prefix is not None:
        most = max(summary.first_edits)
        sparks = "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // most)] for count in summary.first_edits)
        lines += [
            Text.assemble(("first edit     ", "bold"), (f"▕{sparks}▏", "cyan"), " from the start of y- to its end"),
            Text(f"{'':15}median at {summary.first_edit_median:.0%} of y-"),
            Text(f"{'':15}{summary.shared_prefix:.0%} of y+ stands before it, shared with y-"),
        ]
    for name, counts in (
        ("verdict of y+", summary.verdicts),
        ("oracle", summary.oracles),
        ("review", {} if summary.reviews.keys() == {"none"} else summary.reviews),
    ):
        if counts:
            listed = Text(", ").join(
                Text.assemble((_line(key), _VERDICT_STYLES.get(key, "")), f" {count:,}")
                for key, count in counts.items()
            )
            lines.append(Text.assemble((f"{name:<15}", "bold"), listed))
    if summary.alone:
        lines.append(Text(f"{_many(summary.alone, 'row')} without y-: right answers of the policy's own"))
    if summary.unchanged:
        lines.append(Text(f"{_many(summary.unchanged, 'pair')} whose correction changes nothing", style="red"))
    if flat := summary.outcomes:
        lines += [Text(), Text("what became of the samples", style="bold")]
        wide, long = max(map(len, flat)), max(map(len, flat.values()))
        lines += [Text(f"{name:<{wide}}  {value:>{long}}") for name, value in flat.items()]
    return lines


def _flat(counts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Counts in counts, on one level."""
    for key, value in counts.items():
        name = _line(f"{before}{key}").replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}: ")
        elif isinstance(value, float):
            yield name, f"{value:,.4g}"
        elif isinstance(value, int):
            yield name, f"{value:,}"
        elif value is not None:
            yield name, _line(str(value))


def _print_pair(console: Console, pair: Pair, number: str, *, marked: bool, whole: bool) -> None:
    parts = _pair(pair, number, marked=marked, whole=whole)
    if console.is_terminal:
        console.print(*_terminal(parts), sep="\n")
        return
    from rich.segment import Segment, Segments

    # Plain lines as they are: no wrapping, no tabs expanded. Nothing that a model wrote begins a line, so it can't pass
    # for one of ours.
    title, *rest = parts
    lines = [
        f"== {title.plain}",
        *(f"  {line}" if line else "" for part in rest for line in part.plain.split("\n")),
        "",
    ]
    console.print(Segments([Segment("\n".join(lines) + "\n")]), end="", soft_wrap=True)


def _terminal(parts: list[Text]) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.text import Text

    title, *rest = parts
    return [Rule(title, align="left", style="blue"), *(Padding(part, (0, 0, 0, 2)) for part in rest), Text()]


def _pair(pair: Pair, number: str, *, marked: bool, whole: bool) -> list[Text]:
    """Title, facts, prompt and diff of one pair."""
    from rich.text import Text

    spans = diff(pair.original, pair.chosen)
    title = Text.assemble(
        (number, "dim"), "  ", (_line(pair.id), "bold"), f"  trial {pair.trial}" if pair.trial else ""
    )
    ratio = f"{ratio_of(pair):.3f}" + ("" if pair.change_ratio is not None else " in words and signs")
    facts = {
        "change ratio": (None if pair.rejected is None else ratio, "cyan"),
        "y+": (pair.verdict or "not graded", _VERDICT_STYLES.get(pair.verdict or "none", "")),
        "oracle": (oracle_name(pair), ""),
        "cost": (f"${cost:.4f}" if isinstance(cost := pair.oracle.get("cost"), int | float) else None, ""),
        "review": (pair.review, "magenta"),
        "edits": (_size(spans), ""),
    }
    parts = [_facts(facts)]
    parts += [_facts({name: (text, "")}) for name, text in (("source", pair.source), ("answer", pair.answer)) if text]
    parts.append(Text.assemble(("prompt", "dim"), " ", _prompt(pair, whole)))
    return [title, *parts, Text(), _body(spans, marked)]


def _facts(facts: Mapping[str, tuple[str | None, str]]) -> Text:
    from rich.text import Text

    known = [Text.assemble((name, "dim"), " ", (_line(text), style)) for name, (text, style) in facts.items() if text]
    return Text("   ").join(known)


def _prompt(pair: Pair, whole: bool) -> Text:
    """The last turn of the prompt, or all of it."""
    from rich.text import Text

    turns = pair.messages
    if whole and len(turns) > 1:
        return Text("\n").join(
            Text.assemble((_line(turn["role"]), "dim"), f" {safe(turn['content'])}") for turn in turns
        )
    lines = safe(turns[-1]["content"]).split("\n")
    text = Text("\n".join(lines if whole else lines[:PROMPT_LINES]))
    hidden = 0 if whole else len(lines) - PROMPT_LINES
    notes = [f"{_many(hidden, 'line')} more"] if hidden > 0 else []
    notes += [f"{_many(len(turns) - 1, 'turn')} before"] if len(turns) > 1 else []
    return text.append(f"  ({', '.join(notes)})", style="dim") if notes else text


def _size(spans: list[Span]) -> str:
    """How many edits, and how many words and signs they take out and put in."""
    edits = sum(
        span.kind != "kept" and (not place or spans[place - 1].kind == "kept") for place, span in enumerate(spans)
    )
    gone, come = (
        sum(not piece.isspace() for span in spans if span.kind == kind for piece in span.pieces)
        for kind in ("deleted", "inserted")
    )
    return f"{edits} (−{gone} +{come} words)"


def _body(spans: list[Span], marked: bool) -> Text:
    """Both texts in one: what was deleted, what was inserted, and the kept rest, dim before the first edit."""
    from rich.style import Style
    from rich.text import Text

    styles: dict[str, Style] = {
        "deleted": Style(color="red", strike=True, meta={"edit": True}),
        "inserted": Style(color="green", bold=True, meta={"edit": True}),
    }
    marks = {"deleted": ("[-", "-]"), "inserted": ("{+", "+}")}
    body = Text()
    for place, span in enumerate(spans):
        text = safe(span.text)
        if span.kind == "kept":
            body.append(text, style="dim" if place == 0 and len(spans) > 1 else "")
        elif marked:
            before, after = marks[span.kind]
            body.append(f"{before}{text}{after}", style=styles[span.kind])
        else:
            body.append(_visible_blanks(text), style=styles[span.kind])
    return body


def _visible_blanks(text: str) -> str:
    """Ends of lines, and an edit that is nothing but blanks, in signs: colour on a blank can't be seen."""
    if text.isspace():
        text = text.replace(" ", "␣").replace("\t", "⇥")
    return text.replace("\n", "⏎\n")


def _is_edit(segment: Segment) -> bool:
    return bool(segment.style and segment.style.meta.get("edit"))


def _line(text: str) -> str:
    """Foreign text as one line."""
    return safe(text).replace("\n", "␊").replace("\t", "␉")


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_VERDICT_STYLES = {"right": "green", "wrong": "red", "undecided": "yellow"}
