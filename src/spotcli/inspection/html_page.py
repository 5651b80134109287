"""A file of pairs as one self-contained HTML page: no scripts, no fonts, no network.

``html_pages`` makes text from the file harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import chain
from pathlib import Path

from spotcli import html_pages
from spotcli.console import safe
from spotcli.core.edits import diff
from spotcli.html_pages import text
from spotcli.inspection.overview import ReviewSummary, count_noun
from spotcli.inspection.pair_facts import oracle_name, pair_change_ratio
from spotcli.records import Pair

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{theme}{style}</style>
</head>
<body>
"""

_STYLE = """\
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 1.25rem; }
h1 span { color: var(--soft); font-weight: normal; }
h2 { font-size: .95rem; margin: 0 0 .5rem; }
section, article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
section { padding: 1rem 1.25rem; }
.overview { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  margin-bottom: 2rem; align-items: start; }
@media (min-width: 46rem) { .overview > :first-child:nth-last-child(3) { grid-row: span 2; } }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
td { padding: .12rem 0; }
td:last-child { text-align: right; white-space: nowrap; padding-left: .75rem; }
.plot td:first-child { white-space: nowrap; width: 1%; padding-right: .75rem; color: var(--soft); }
.plot i { display: block; height: .8rem; min-width: 2px; border-radius: 2px; background: var(--bar); }
.plot i.beyond { background: var(--del); }
.where { display: flex; align-items: end; gap: 2px; height: 3rem; margin: .25rem 0 .5rem; }
.where i { flex: 1; background: var(--bar); border-radius: 2px 2px 0 0; min-height: 1px; }
p { margin: .25rem 0; }
article { margin: 0 0 1.25rem; overflow: hidden; }
header { padding: .7rem 1.25rem; border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  align-items: baseline; font-size: .9rem; }
header a { color: inherit; font-weight: 600; font-size: 1rem; text-decoration: none; }
header b { font-weight: 600; }
details, .answer { padding: .5rem 1.25rem 0; font-size: .9rem; }
summary { color: var(--soft); cursor: pointer; }
pre { padding: .8rem 1.25rem 1rem; }
details pre { padding: .5rem 0 0; }
.counts th { text-align: left; font-weight: normal; padding: .12rem .75rem .12rem 0; }
.counts thead th { color: var(--soft); }
.counts td, .counts thead th:not(:first-child) { text-align: right; padding-left: .75rem; }
"""


def write_page(path: Path, summary: ReviewSummary, pairs: Iterable[Pair]) -> None:
    """Write the overview and the pairs; pairs are streamed, and ``path`` is replaced when the page is complete.

    Raises:
        UserError: the folder does not exist or is not writable.
    """
    parts = chain(_overview(summary), map(_article, pairs), ["</body>\n</html>\n"])
    html_pages.write(path, parts)


def page_head(title: str) -> str:
    """The beginning of a page, given its title as HTML."""
    return _HEAD.format(policy=html_pages.content_policy(), title=title, theme=html_pages.THEME, style=_STYLE)


def _overview(summary: ReviewSummary) -> Iterator[str]:
    name = text(Path(summary.path).name)
    pairs = count_noun(summary.pairs, "pair")
    yield page_head(f"{name}: {pairs}")
    selected = f", {summary.matching:,} selected" if summary.matching < summary.pairs else ""
    yield f"<h1>{name} <span>{pairs}{selected}</span></h1>\n<div class='overview'>\n"
    yield from _ratio_section(summary)
    yield "<section>\n"
    yield from _first_edits(summary)
    yield from _counts(summary)
    yield "</section>\n"
    if summary.outcomes:
        rows = "".join(f"<tr><td>{text(key)}</td><td>{text(n)}</td></tr>\n" for key, n in summary.outcomes.items())
        yield f"<section><h2>From samples to pairs</h2>\n<table>\n{rows}</table></section>\n"
    yield "</div>\n"


def _ratio_section(summary: ReviewSummary) -> Iterator[str]:
    if summary.ratio_median is None:
        return
    yield f"<section><h2>Change ratio <span class='soft'>median {summary.ratio_median:.3f}, mean "
    yield f"{summary.ratio_mean:.3f}, max {summary.ratio_max:.3f}</span></h2>\n<table class='plot'>\n"
    highest = max(count for _, _, count in summary.histogram)
    for low, high, count in summary.shown_bins:
        kind = " class='beyond'" if low >= summary.gamma else ""
        bar = f"<i{kind} style='width:{100 * count / highest:.1f}%'></i>" if count else ""
        yield f"<tr><td>{low:.2f}–{high:.2f}</td><td style='width:99%'>{bar}</td><td>{count:,}</td></tr>\n"
    yield "</table>\n"
    if summary.above_gamma:
        yield f"<p class='wrong'>{count_noun(summary.above_gamma, 'pair')} above gamma {summary.gamma:g}</p>\n"
    if summary.unmeasured:
        ratios = count_noun(summary.unmeasured, "ratio")
        yield f"<p class='undecided'>{ratios} missing in the file, computed on words</p>\n"
    yield "</section>\n"


def _first_edits(summary: ReviewSummary) -> Iterator[str]:
    if summary.first_edit_median is None or summary.shared_prefix is None:
        return
    highest = max(summary.first_edits)
    bars = "".join(f"<i style='height:{100 * count / highest:.0f}%'></i>" for count in summary.first_edits)
    yield f"<h2>First edit <span class='soft'>by tenths of y-</span></h2><div class='where'>{bars}</div>\n"
    yield f"<p>Median at {summary.first_edit_median:.0%} of y-; shared prefix {summary.shared_prefix:.0%} of y+</p>\n"


def _counts(summary: ReviewSummary) -> Iterator[str]:
    for title, counts in (
        ("Verdict of y+", summary.verdicts),
        ("Oracle", summary.oracles),
        ("Review", summary.reviews),
    ):
        if counts.keys() - {"none"}:
            listed = ", ".join(f"<span class='{_class(key)}'>{text(key)}</span> {n:,}" for key, n in counts.items())
            yield f"<p><b>{title}</b> {listed}</p>\n"
    if summary.without_rejected:
        rows = count_noun(summary.without_rejected, "row")
        yield f"<p>{rows} without y-: the policy's own right answers</p>\n"
    if summary.unchanged:
        yield f"<p class='wrong'>{count_noun(summary.unchanged, 'pair')} with identical y- and y+</p>\n"


def _article(pair: Pair) -> str:
    trial = f"-{pair.trial}" if pair.trial else ""
    anchor = escape(safe(pair.id), quote=True).replace(" ", "_") + trial
    note = "" if pair.change_ratio is not None else " <span class='soft'>on words</span>"
    facts = []
    if pair.rejected is not None:
        facts.append(f"<span>change ratio <b>{pair_change_ratio(pair):.3f}</b>{note}</span>")
    if pair.verdict:
        facts.append(f"<span>y+ <b class='{_class(pair.verdict)}'>{pair.verdict}</b></span>")
    for name, value in (("trial", pair.trial or None), ("oracle", oracle_name(pair)), ("review", pair.review)):
        if value is not None:
            facts.append(f"<span><span class='soft'>{name}</span> {text(value)}</span>")
    if pair.source:
        facts.append(f"<span class='soft'>{text(pair.source)}</span>")
    turns = pair.messages
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" if len(turns) > 1 else turn["content"] for turn in turns)
    title = text(pair.id).replace("\n", "␊")
    opened = " open" if len(prompt) < 600 else ""
    answer = f"<p class='answer'><span class='soft'>answer</span> {text(pair.answer)}</p>\n" if pair.answer else ""
    return (
        f"<article id='{anchor}'>\n<header><a href='#{anchor}'>{title}</a>{''.join(facts)}</header>\n"
        f"<details{opened}><summary>prompt</summary><pre>{text(prompt)}</pre></details>\n{answer}"
        f"<pre>{html_pages.marked_diff(diff(pair.original, pair.chosen))}</pre>\n</article>\n"
    )


def _class(word: str) -> str:
    return word if word in ("right", "wrong", "undecided") else ""
