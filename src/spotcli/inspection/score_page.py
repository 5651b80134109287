"""The answers of an evaluation as one self-contained HTML page; with a base model's scores, as diffs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from spotcli import html_pages
from spotcli.console import one_line
from spotcli.html_pages import text
from spotcli.inspection.html_page import page_head
from spotcli.inspection.overview import count_noun
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.records import Score
from spotcli.score_changes import CHANGES, ComparedAnswers

_KINDS = {"won": "right", "lost": "wrong"}


def write_score_page(path: Path, summary: ScoreSummary, rows: Iterable[Score | ComparedAnswers]) -> None:
    """Write the overview and the answers; they are streamed, and ``path`` is replaced when the page is complete.

    Raises:
        UserError: the folder does not exist or is not writable.
    """
    parts = chain(_overview(summary), map(_article, rows), ["</body>\n</html>\n"])
    html_pages.write(path, parts)


def _overview(summary: ScoreSummary) -> Iterator[str]:
    name, answers = text(Path(summary.path).name), count_noun(summary.answers, "answer")
    yield page_head(f"{name}: {answers}")
    noun = "problem" if summary.against else "answer"
    selected = f", {count_noun(summary.matching, noun)} selected" if summary.matching < summary.answers else ""
    yield f"<h1>{name} <span>{answers}{selected}</span></h1>\n<div class='overview'>\n"
    if summary.against:
        yield f"<section><h2>Problems <span class='soft'>against {text(Path(summary.against).name)}</span></h2>\n"
        yield from _table(("task", *CHANGES), {task: list(counts.values()) for task, counts in summary.changes.items()})
    elif summary.tasks:
        columns = ("task", "problems", "right", "wrong", "undecided", "truncated")
        yield "<section><h2>Verdicts</h2>\n"
        yield from _table(columns, {task: list(counts.values()) for task, counts in summary.tasks.items()})
    if summary.reasons:
        listed = ", ".join(f"{text(reason)} {count:,}" for reason, count in summary.reasons.items())
        yield f"<section><h2>Undecided</h2>\n<p>{listed}</p></section>\n"
    yield "</div>\n"


def _table(columns: Iterable[str], rows: dict[str, list[int]]) -> Iterator[str]:
    head = "".join(f"<th scope='col'>{column}</th>" for column in columns)
    yield f"<table class='counts'><thead><tr>{head}</tr></thead>\n"
    for name, counts in rows.items():
        cells = "".join(f"<td>{count:,}</td>" for count in counts)
        yield f"<tr><th scope='row'>{text(name)}</th>{cells}</tr>\n"
    yield "</table></section>\n"


def _article(row: Score | ComparedAnswers) -> str:
    score = row.tuned if isinstance(row, ComparedAnswers) else row
    facts = _change_facts(row) if isinstance(row, ComparedAnswers) else _verdict("", row)
    turns = score.messages
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" if len(turns) > 1 else turn["content"] for turn in turns)
    reference = f"<p class='answer'><span class='soft'>answer</span> {text(score.answer)}</p>\n" if score.answer else ""
    opened = " open" if len(prompt) < 600 else ""
    trial = f" <span class='soft'>trial {score.trial}</span>" if score.trial else ""
    return (
        f"<article>\n<header><b>{text(one_line(score.id))}</b>{trial}<span class='soft'>{text(score.task)}</span>"
        f"{facts}</header>\n<details{opened}><summary>prompt</summary><pre>{text(prompt)}</pre></details>\n{reference}"
        f"{_answers(row)}</article>\n"
    )


def _change_facts(row: ComparedAnswers) -> str:
    problem = row.problem
    right = f" {problem.base_right} to {problem.tuned_right} of {problem.trials} right" if problem.trials > 1 else ""
    change = f"<span><b class='{_KINDS.get(problem.change, '')}'>{problem.change}</b>{right}</span>"
    return change + _verdict("base", row.base) + _verdict("tuned", row.tuned)


def _verdict(name: str, score: Score) -> str:
    """Verdict and extracted answer of one model."""
    notes = ["truncated"] if score.finish_reason == "length" else [score.reason] if score.reason else []
    notes += [f"extracted {score.extracted}"] if score.extracted is not None else []
    note = f" <span class='soft'>{text(one_line(', '.join(notes)))}</span>" if notes else ""
    return f"<span><span class='soft'>{name}</span> <b class='{score.verdict}'>{score.verdict}</b>{note}</span>"


def _answers(row: Score | ComparedAnswers) -> str:
    if isinstance(row, Score):
        return f"<pre>{text(row.response)}</pre>\n"
    old, new = row.base.response, row.tuned.response
    spans = html_pages.similar_diff(old, new)
    if spans is not None:
        return f"<pre>{html_pages.marked_diff(spans)}</pre>\n"
    return "".join(
        f"<p class='answer'><b>{name} answer</b></p><pre>{text(response)}</pre>\n"
        for name, response in (("base", old), ("tuned", new))
    )
