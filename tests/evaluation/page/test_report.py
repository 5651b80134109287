"""The page of an evaluation: its content, and that nothing in it can run, load or hide.

Expected numbers are worked out in the comments.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spotcli.evaluation.card_section import section
from spotcli.evaluation.page import _figures, flips, write_report
from spotcli.evaluation.page.differences import difference_plot, drift_plot
from spotcli.evaluation.page.numbers import point_range
from spotcli.evaluation.page.plots import drift_axis, point_axis
from spotcli.evaluation.page.score_table import paper_table, short_names
from spotcli.evaluation.scores import EvalSummary, TaskFacts
from spotcli.evaluation.summary import summarise
from tests.browser import CHROMIUM, opened
from tests.evaluation.page.example_evaluation import SMALL, TASKS, example, rows, write_rows
from tests.evaluation.scored import compared
from tests.inspection.example_pairs import ATTACKS
from tests.page_outline import Outline, check_harmless


def written(folder: Path, summary: EvalSummary) -> str:
    path = folder / "scores" / "report.html"
    write_report(path, summary)
    return path.read_text(encoding="utf-8")


def test_the_page_has_every_part_and_loads_nothing(tmp_path: Path) -> None:
    summary = example(tmp_path)
    text = written(tmp_path, summary)
    outline = check_harmless(text)
    shown = " ".join(" ".join(outline.text).split())
    for sentence in summary.verdict:
        assert sentence in shown
    assert shown.index(summary.verdict[0]) < shown.index("Scores")
    for part in (
        "Differences",
        "Lost and won problems",
        "Drift",
        "Every number",
        "Settings and versions",
        "3 problems",
    ):
        assert part in shown
    comparison = summary.comparisons["aime24"].comparison
    assert f"{100 * comparison.difference:+.1f}" in shown
    assert "0.0123" in shown
    assert "torch" in shown
    assert [file.name for file in (tmp_path / "scores").glob(".report*")] == []


def test_the_page_is_accessible(tmp_path: Path) -> None:
    text = written(tmp_path, example(tmp_path))
    outline = Outline(text)
    assert text.count("<caption") == text.count("<table")
    assert all(item.get("scope") in ("col", "row", "colgroup") for item in outline.named("th"))
    for item in outline.named("svg"):
        assert item.get("aria-hidden") == "true" or item.get("aria-label")
    assert len(outline.named("h1")) == 1
    assert outline.named("html")[0]["lang"] == "en"
    assert {item.get("name") for item in outline.named("meta")} >= {"viewport"}
    # A region that scrolls can be reached and named by the keyboard.
    for item in outline.named("div"):
        assert item.get("role") != "region" or (item["tabindex"] == "0" and f'id="{item["aria-labelledby"]}"' in text)


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_is_harmless(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    fields = {"answer": attack, "extracted": attack, "reason": attack}
    summary = example(tmp_path, {attack: ("in-domain", 6, 1, 0.5, 0.5)}, response=f"same {attack}", **fields)
    models = [replace(model, model=f"{attack} {index}") for index, model in enumerate(summary.models)]
    hostile = replace(
        summary,
        models=models,
        model=models[1].model,
        against=models[0].model,
        verdict=[attack],
        overlaps={attack: 1},
        settings={attack: attack},
        versions={attack: attack},
        files=[attack],
    )
    check_harmless(written(tmp_path, hostile))


def test_a_model_without_a_base_has_a_page(tmp_path: Path) -> None:
    model = write_rows(tmp_path / "scores" / "alone.jsonl", rows("alone", SMALL, 3))
    facts = dict.fromkeys(SMALL, TaskFacts())
    summary = summarise([model], facts, compared=False, trained=["aime24"], margin=0.02)
    text = written(tmp_path, summary)
    check_harmless(text)
    assert "Differences" not in text
    assert "won" not in "".join(Outline(text).text)


def test_flips_are_limited_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flips, "SHOWN", 3)
    summary = example(tmp_path)
    lost = sum(len(item.lost) for item in summary.comparisons.values())
    text = written(tmp_path, summary)
    assert text.count('<details class="flip"') == 6
    assert f"3 problems, {lost - 3} more left out" in text
    assert "checkpoint.jsonl --where lost" in text
    section = flips.flip_section(summary)
    assert section is not None
    # Taken in turn from each task, so that a large task does not hide a small one.
    assert {flip.problem.task for flip in section.lost} == {"aime24", "gpqa", "notes"}
    assert all(flip.problem.change == "lost" for flip in section.lost)
    counts = {count.task: count for count in section.counts}
    assert counts["gpqa"].problems == 198


def test_a_huge_answer_is_shown_in_part(tmp_path: Path) -> None:
    summary = example(tmp_path, {"notes": ("other", 12, 1, 0.5, 0.5)}, response="x" * 300_000 + " the end")
    text = written(tmp_path, summary)
    assert len(text) < 300_000
    assert "296,008 characters" in text  # 300,008 characters, of which 4,000 are shown
    assert "the end" in text


def test_the_table_has_averages_and_marks_the_best(tmp_path: Path) -> None:
    summary = example(tmp_path, TASKS)
    table = paper_table(summary)
    assert table.groups == [("in-domain", 5), ("OOD", 3), ("IFEval", 1), ("other", 1), ("", 1)]
    titles = [column.title for column in table.columns]
    assert titles[:5] == ["aime24", "aime25", "amc23", "math500", "average"]
    assert titles[5:] == ["gpqa", "connect4", "average", "ifeval", "notes", "overall"]
    base, tuned, _ = table.lines
    means = [summary.models[0].scores[task].estimate.mean for task in ("aime24", "aime25", "amc23", "math500")]
    assert base.cells[4].value == pytest.approx(sum(means) / 4)
    average, change = summary.models[0].averages["in-domain"], summary.average_changes["in-domain"]
    assert base.cells[4].note == f"{100 * average.low:.1f}–{100 * average.high:.1f}"
    assert table.difference[4].note == point_range(change.low, change.high)
    text = written(tmp_path, summary)
    assert text.count(f"<small>{point_range(change.low, change.high)}</small>") == 1
    assert text.count(f"<small>{base.cells[-1].note}</small>") >= 1
    for index, cell in enumerate(table.difference):
        assert cell.value == pytest.approx((tuned.cells[index].value or 0) - (base.cells[index].value or 0))
        values = [line.cells[index].value for line in table.lines]
        best = [line.cells[index].best for line in table.lines]
        assert best == [value == max(filter(None, values)) and len(set(values)) > 1 for value in values]


def test_short_names_are_unique() -> None:
    names = ["Qwen/Qwen3-8B", "/runs/a/checkpoint", "/runs/b/checkpoint", "checkpoint", "runs/sft/merged"]
    assert short_names(names) == {
        "Qwen/Qwen3-8B": "Qwen/Qwen3-8B",
        "/runs/a/checkpoint": "a/checkpoint",
        "/runs/b/checkpoint": "b/checkpoint",
        "checkpoint": "checkpoint",
        "runs/sft/merged": "merged",
    }


def test_axes_by_hand() -> None:
    # From -4 to +11: steps of 5 from -5 to +15. 0 is a quarter of the way, within 3 % on each side: 3 + 94 / 4.
    axis = point_axis([-4, 11])
    assert (axis.low, axis.high, [tick.label for tick in axis.ticks]) == (-5, 15, ["−5", "0", "+5", "+10", "+15"])
    assert axis.place(0) == 26.5
    assert axis.place(100) == 97
    # No difference at all still has a scale.
    assert point_axis([]).low == -0.5
    # 0.0001 to 1 are four powers: 0.01 is in the middle, and 0 is at the start.
    drift = drift_axis([0.01, 0.0])
    assert (drift.place(0.01), drift.place(0.0)) == (50, 3)
    assert [tick.label for tick in drift.ticks] == ["0.0001", "0.001", "0.01", "0.1", "1"]


def test_differences_have_the_results_of_the_summary(tmp_path: Path) -> None:
    summary = example(tmp_path, TASKS)
    plot = difference_plot(summary)
    assert plot is not None
    lines = {line.task: line for line in plot.lines}
    assert [line.task for line in plot.lines][:4] == ["aime24", "aime25", "amc23", "math500"]  # the trained ones
    for task, item in summary.comparisons.items():
        line = lines[task]
        assert line.low <= line.at <= line.high
        if not item.trained:
            assert line.result == item.retention.verdict
        assert (line.low > plot.zero) == (100 * item.comparison.low > 0)
    assert plot.lines[-1].pooled
    assert plot.margin < plot.zero


def test_earlier_evaluations_are_in_the_drift_plot(tmp_path: Path) -> None:
    summary = example(tmp_path)
    scores = tmp_path / "scores"

    def write(name: str, text: str) -> None:
        (scores / f"{name}.summary.json").write_text(text, encoding="utf-8")

    def earlier(**more: Any) -> str:
        comparison = {"aime24": {"comparison": {"difference": 0.07}}}
        return json.dumps({"model": "sft", "against": summary.against, "drift": 0.2, "comparisons": comparison} | more)

    write("sft", earlier())
    write("other-base", earlier(against="another"))
    write("no-drift", earlier(drift=None))
    write("damaged", "[")
    write("odd", earlier(comparisons={"aime24": 3}))
    plot = drift_plot(summary, scores)
    assert plot is not None
    assert [(point.name, point.drift, point.gain, point.current) for point in plot.points] == [
        ("sft", "0.2", "+7.0", False),
        ("checkpoint", "0.0123", plot.points[1].gain, True),
    ]


SCRIPTS = (
    "<script>alert('run')</script><img src=x onerror=alert(1)>"
    "</pre></script><svg onload=alert(2)><a href=javascript:alert(3)>x</a>"
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser_nothing_runs_is_requested_or_logged(tmp_path: Path) -> None:
    summary = example(tmp_path, response=f"{SCRIPTS} same {SCRIPTS}")
    written(tmp_path, replace(summary, verdict=[SCRIPTS], settings={"note": SCRIPTS}))
    path = tmp_path / "scores" / "report.html"

    async def look() -> None:
        for width, scheme in ((390, "dark"), (1200, "light")):
            async with opened(path, width=width, scheme=scheme) as shown:
                wide = await shown.script("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0
                # One script of ours, none of an answer.
                assert await shown.script("document.scripts.length") == 1
                assert await shown.script("document.querySelectorAll('img, a, svg[onload]').length") == 0
                assert (await shown.script("document.body.innerText")).startswith("Evaluation against")
                assert (shown.logged, shown.dialogs) == ([], [])
                assert shown.requested == [path.resolve().as_uri()]

    asyncio.run(look())


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser_tables_sort_by_click_and_by_keyboard(tmp_path: Path) -> None:
    summary = example(tmp_path, TASKS)
    written(tmp_path, summary)
    column = "[...document.querySelectorAll('.paper tbody tr')].map(row => Number(row.cells[1].dataset.value))"
    sort = "document.querySelector('.paper th[data-column=\"1\"]').getAttribute('aria-sort')"

    async def sorts() -> None:
        async with opened(tmp_path / "scores" / "report.html") as shown:
            before = await shown.script(column)
            await shown.script("document.querySelector('.paper th[data-column=\"1\"] button').click()")
            assert await shown.script(column) == sorted(before, reverse=True)
            assert await shown.script(sort) == "descending"
            await shown.script("document.querySelector('.paper th[data-column=\"1\"] button').focus()")
            await shown.press("Enter")
            assert await shown.script(column) == sorted(before)
            assert await shown.script(sort) == "ascending"
            # The differences stay below.
            assert "difference" in await shown.script("document.querySelector('.paper tfoot').innerText")
            # Text is sorted as text, with its numbers as numbers.
            await shown.script("document.querySelector('.numbers th[data-column=\"0\"] button').click()")
            rows = "[...document.querySelector('.numbers').tBodies[0].rows]"
            names = await shown.script(f"{rows}.map(row => row.cells[0].innerText.split('\\n')[0])")
            assert names == sorted(names, reverse=True)
            assert shown.logged == []

    asyncio.run(sorts())


def test_the_page_and_the_card_have_the_verdict_of_the_terminal(tmp_path: Path) -> None:
    # "math": p = 2 / 2^6, but the interval contains 0. "far" loses 12 of 100 problems, which the 300 problems that
    # "near" wins would hide.
    before = {"math": ["w" * 16] * 6, "far": ["r" * 16] * 100, "near": ["w" * 16] * 300}
    after = {"math": ["r" + "w" * 15] * 6, "far": ["w" * 16] * 12 + ["r" * 16] * 88, "near": ["r" * 16] * 300}
    summary = compared(before, after, trained=["math"])
    assert summary.verdict[0].startswith("No gain shown in math")
    plot = difference_plot(summary)
    assert plot is not None
    assert [(line.result, line.kind) for line in plot.lines] == [
        ("no gain shown", "open"),
        ("lost", "bad"),
        ("kept", "good"),
        ("", "open"),
    ]
    assert [(figure.title, figure.kind) for figure in _figures(summary)[:2]] == [("Gain", "open"), ("Retention", "bad")]
    assert _figures(summary)[1].text == "lost"
    lines = [line for line in section(summary).splitlines() if line.startswith("| math")]
    assert lines[0].endswith("| no gain shown |")


def test_the_gain_in_several_trained_tasks_is_their_mean() -> None:
    before, after = {"aime24": ["r"] * 20, "math": ["w"] * 20}, {"aime24": ["r"] * 20, "math": ["r"] * 20}
    gain = _figures(compared(before, after, trained=["aime24", "math"]))[0]
    # (0 + 100) / 2 points
    assert (gain.title, gain.text, gain.kind) == ("Gain", "+50.0", "good")
    assert gain.note.startswith("points, mean of 2 trained tasks, ")
    gain = _figures(compared(before, after, trained=["math"]))[0]
    assert (gain.text, gain.note.partition(",")[0]) == ("+100.0", "points in math")


def test_flips_are_shown_where_the_first_trials_failed(tmp_path: Path) -> None:
    # Both models have four trials; the first two of the tuned model failed, and its mean is 2 answers per problem.
    tuned = [line | {"trial": line["trial"] + 2} for line in rows("tuned", {"aime24": ("other", 9, 2, 0.1, 0.9)}, 4)]
    base = rows("base", {"aime24": ("other", 9, 4, 0.1, 0.9)}, 3)
    models = [
        write_rows(tmp_path / "scores" / f"{name}.jsonl", lines) for name, lines in (("base", base), ("tuned", tuned))
    ]
    summary = summarise(models, {"aime24": TaskFacts()}, compared=True, trained=["aime24"], margin=0.02)
    shown = flips.flip_section(summary)
    assert shown is not None
    assert len(shown.won) == len(summary.comparisons["aime24"].won) > 0
    assert (shown.won_left, shown.lost_left) == (0, 0)
