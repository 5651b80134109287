"""The page of a run: its numbers, and text from outside that stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl
from spotcli.runs.curves import charts, histogram
from spotcli.runs.report import examples, funnel, write_report
from tests.page_outline import Outline

SAMPLE = {
    "problems": 90,
    "decontaminated": {"arithmetic": 6},
    "conflicting": 4,
    "answers": 170,
    "right": 100,
    "wrong": 50,
    "undecided": 20,
    "failed": 8,
    "remaining": 2,
    "cost": 0.25,
}
RECTIFY = {
    "samples": 170,
    "right": 100,
    "undecided": 20,
    "wrong": 50,
    "pairs": 30,
    "reasons": {"too large": 15, "<b>declined</b>": 4},
    "oracles": {"gpt-4o": {"replies": 60, "pairs": 30, "cost": 1.5}},
    "cost": 1.5,
}
TRAIN = {"rows": 30, "pairs": 28, "dropped": {"longer than max_length": 2}}
ATTACK = "<script>alert(1)</script>\u202e{{ 7 * 7 }}"


def test_every_count_of_the_funnel_is_the_one_before_less_what_left() -> None:
    lines = {line.name: line for line in funnel({"sample": SAMPLE, "rectify": RECTIFY, "train": TRAIN})}
    # 90 problems were asked; 6 + 4 of 100 were left out before.
    assert lines["problems"].count == 100
    assert dict(lines["problems"].left) == {"in the evaluation task arithmetic": 6, "more than one reference": 4}
    # 170 of 180 requests have an answer.
    assert lines["answers"].count + sum(count for _, count in lines["answers"].left) == 180
    assert lines["wrong answers"].count + sum(count for _, count in lines["wrong answers"].left) == 170
    # 30 pairs + 15 + 4 + 1 that is still open = 50 wrong answers.
    assert lines["pairs"].left == [("too large", 15), ("<b>declined</b>", 4), ("still open", 1)]
    assert lines["pairs"].share == 17.6  # 30 of 170
    assert lines["trained pairs"].left == [("longer than max_length", 2)]


def test_a_run_until_rectify_has_no_line_of_training() -> None:
    assert [line.name for line in funnel({"sample": SAMPLE, "rectify": RECTIFY})][-1] == "pairs"


def pair(number: int, ratio: float, **fields: Any) -> dict[str, Any]:
    return (
        {"id": f"p{number:02}", "prompt": "1 + 1", "rejected": "It is 3.", "chosen": "It is 2."}
        | fields
        | {"change_ratio": ratio}
    )


def test_the_examples_are_a_small_a_middle_and_a_large_change() -> None:
    shown = examples([pair(number, number / 100) for number in range(21)])
    # Places 0.1, 0.5 and 0.9 of 20: 2, 10 and 18.
    assert [example.id for example in shown] == ["p02", "p10", "p18"]
    assert [len(examples([pair(0, 0.1)] * count)) for count in (0, 1, 2)] == [0, 1, 2]


def test_the_bars_contain_every_value_once() -> None:
    bars = histogram([0.0, 0.05, 0.5, 1.0, float("nan")])
    assert sum(bar.count for bar in bars) == 4
    assert (bars[-1].high, bars[-1].count, bars[0].count, bars[1].count) == (1.0, 1, 1, 1)
    assert histogram([]) == []
    assert sum(bar.count for bar in histogram([0.0, 0.0])) == 2


def test_curves_span_their_values_and_leave_out_what_is_no_number() -> None:
    rows: list[dict[str, Any]] = [{"step": 1, "loss": 4.0}, {"step": 3, "loss": 1.0}, {"step": 5, "loss": None}]
    (chart,) = charts(rows)
    # From 0 to 4: 4 is at the top (0 %), 1 at 75 %.
    assert chart.lines[0].points == "0.00,0.00 100.00,75.00"
    assert (chart.low, chart.high, chart.zero) == ("0", "4", None)
    assert charts([{"step": 1, "loss": 1.0}]) == []
    long = charts([{"step": step, "loss": 1.0 + step % 2} for step in range(10_000)])[0]
    assert len(long.lines[0].points.split()) == 400


def test_text_from_outside_is_text_on_the_page(tmp_path: Path) -> None:
    folder = tmp_path
    jsonl.write_rows(folder / "data.jsonl", [pair(1, 0.2, rejected=f"{ATTACK} 3", chosen=f"{ATTACK} 2", prompt=ATTACK)])
    (folder / "recipe.yaml").write_text(f"name: '{ATTACK}'\n")
    summary = {
        "sample": SAMPLE,
        "rectify": RECTIFY | {"oracles": {ATTACK: {"replies": 1, "pairs": 1, "cost": None}}},
        "eval": {"verdict": [ATTACK], "comparisons": {}, "drift": None},
        "seconds": 61.0,
        "stage_seconds": {"sample": 61.0},
    }
    page = write_report(folder, ATTACK, summary).read_text()
    outline = Outline(page)
    assert outline.scripts == []
    assert {tag for tag, _ in outline.tags}.isdisjoint({"b<", "script", "img", "iframe", "link"})
    assert "\u202e" not in page
    assert "49" not in "".join(outline.text)
    assert "".join(outline.text).count("alert(1)") >= 6


@pytest.mark.parametrize("stages", [{}, {"sample": SAMPLE}])
def test_a_page_of_few_stages_has_only_their_sections(tmp_path: Path, stages: dict[str, Any]) -> None:
    text = "".join(Outline(write_report(tmp_path, "demo", stages).read_text()).text)
    assert ("From problems to pairs" in text) == bool(stages)
    assert "Gains and losses" not in text
    assert "Training" not in text.replace("Post-Training", "")
