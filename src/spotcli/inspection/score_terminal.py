"""The answers of an evaluation as text; with a base model's answers, each problem as a diff of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spotcli.console import counted, one_line, safe
from spotcli.html_pages import similar_diff
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.inspection.shared_prompts import SharedLines
from spotcli.inspection.terminal import VERDICT_STYLES, Layout, diff_part, fact_line, prompt_lines, show_row
from spotcli.records import Score
from spotcli.score_changes import ComparedAnswers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CHANGE_STYLES = {"won": "green", "lost": "red", "both": "", "neither": "dim"}


def print_score_overview(console: Console, summary: ScoreSummary) -> None:
    """Print the verdicts per task, and the reasons of undecided ones."""
    console.print(score_overview(summary), soft_wrap=True)


def score_overview(summary: ScoreSummary) -> Text:
    """The verdicts per task, and the reasons of undecided ones."""
    from rich.text import Text

    title = Text.assemble((one_line(summary.path), "bold"), f"  {counted(summary.answers, 'answer')} of an evaluation")
    if summary.matching < summary.answers:
        selected = counted(summary.matching, "problem") if summary.against else f"{summary.matching:,}"
        title.append(f", {selected} selected", style="yellow")
    lines = [title]
    # Of problems that are compared, one answer each is selected: its verdicts are no score.
    for task, counts in () if summary.against else summary.tasks.items():
        line = Text.assemble((f"{one_line(task):<15}", "bold"), f" {counted(counts['problems'], 'problem')}")
        for name in ("right", "wrong", "undecided"):
            line.append(", ").append(name, style=VERDICT_STYLES[name]).append(f" {counts[name]:,}")
        share = counts["right"] / (counts["right"] + counts["wrong"] + counts["undecided"])
        lines.append(line.append(f" ({share:.1%} right)"))
    for task, changes in summary.changes.items():
        line = Text.assemble((f"{one_line(task):<15}", "bold"), f" {counted(sum(changes.values()), 'problem')}")
        for change, count in changes.items():
            line.append(", ").append(change, style=_CHANGE_STYLES[change]).append(f" {count:,}")
        lines.append(line)
    if summary.against:
        lines.append(Text(f"{'':15} compared with {one_line(summary.against)}", style="dim"))
    if summary.reasons:
        listed = ", ".join(f"{one_line(reason)} {count:,}" for reason, count in summary.reasons.items())
        lines.append(Text.assemble((f"{'undecided':<15}", "bold"), f" {listed}"))
    return Text("\n").join([*lines, Text()])


def show_change(console: Console, answers: ComparedAnswers, number: str, layout: Layout) -> None:
    """Print the answers of two models to one problem as a diff."""
    shared = layout.shared_lines(answers.tuned)
    title, *head = change_head(answers, number, whole=layout.whole, shared=shared)
    show_row(console, title, [*layout.wrapped(console, head), *_change_text(console, answers, layout)])


def score_parts(score: Score, number: str, *, whole: bool, shared: SharedLines | None = None) -> list[Text]:
    """Title, facts, prompt and response of one answer of an evaluation."""
    from rich.text import Text

    title = Text.assemble((number, "dim"), "  ", (one_line(score.id), "bold"), f"  trial {score.trial}")
    facts = {
        "verdict": (score.verdict, VERDICT_STYLES[score.verdict]),
        "extracted": (score.extracted, "cyan"),
        "answer": (score.answer, ""),
        "reason": (score.reason, ""),
        "finish": ("truncated" if score.finish_reason == "length" else None, ""),
    }
    parts = [fact_line(facts), fact_line({"task": (score.task, ""), "source": (score.source, "")})]
    parts.append(Text.assemble(("prompt", "dim"), " ", prompt_lines(score, whole, shared)))
    return [title, *parts, Text(), Text(safe(score.response))]


def change_head(compared: ComparedAnswers, number: str, *, whole: bool, shared: SharedLines | None) -> list[Text]:
    """Title, facts and prompt of the answers of two models to one problem."""
    from rich.text import Text

    problem, tuned = compared.problem, compared.tuned
    trial = f"  trial {problem.tuned_trial}" if problem.trials > 1 else ""
    title = Text.assemble((number, "dim"), "  ", (one_line(problem.id), "bold"), trial)
    right = f"{problem.base_right} to {problem.tuned_right} of {problem.trials}" if problem.trials > 1 else None
    facts = {
        "change": (problem.change, _CHANGE_STYLES[problem.change]),
        "right": (right, ""),
        "answer": (tuned.answer, ""),
        "task": (tuned.task, ""),
        "source": (tuned.source, ""),
    }
    parts = [fact_line(facts)]
    for name, score in (("base", compared.base), ("tuned", tuned)):
        verdict = score.verdict if score.finish_reason == "stop" else f"{score.verdict} (truncated)"
        shown = {
            name: (verdict, VERDICT_STYLES[score.verdict]),
            "extracted": (score.extracted, "cyan"),
            "reason": (score.reason, ""),
        }
        parts.append(fact_line(shown))
    parts.append(Text.assemble(("prompt", "dim"), " ", prompt_lines(tuned, whole, shared)))
    return [title, *parts]


def _change_text(console: Console, compared: ComparedAnswers, layout: Layout) -> list[Text]:
    """The diff of both answers; one after the other if they have nearly nothing in common, as sampled answers have."""

    old, new = compared.base.response, compared.tuned.response
    spans = similar_diff(old, new)
    if spans is not None:
        return diff_part(spans, layout)
    return layout.wrapped(console, both_answers(compared))


def both_answers(compared: ComparedAnswers) -> list[Text]:
    """The answers of two models one after the other, each after an empty line."""
    from rich.text import Text

    answers = (("base", compared.base.response), ("tuned", compared.tuned.response))
    parts: list[Text] = []
    for name, text in answers:
        parts += [Text(), Text.assemble((f"{name} answer", "bold"), f"\n{safe(text)}")]
    return parts
