"""The section of the model card: only in a card of ours, once, and with nothing but text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from spotcli.evaluation.card_section import BEGIN, END, section, update_card
from spotcli.evaluation.page.numbers import point_range, points
from tests.evaluation.page.example_evaluation import TASKS, example
from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS

CARD = (
    "---\npipeline_tag: text-generation\n---\n\n# Trained\n\nTrained by `spot train` on 18 pairs.\n\n## Versions\n\n5\n"
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder as ``spot train`` writes it."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "spot-train.json").write_text("{}")
    return folder


def test_the_section_is_added_and_then_replaced(checkpoint: Path, tmp_path: Path) -> None:
    summary = example(tmp_path)
    assert update_card(checkpoint, summary)
    card = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert card.startswith(CARD.rstrip())
    assert card.count(BEGIN) == card.count(END) == 1
    comparison = summary.comparisons["aime24"].comparison
    row = next(line for line in card.splitlines() if line.startswith("| aime24"))
    assert (
        f"| {100 * comparison.before:.1f} | {100 * comparison.after:.1f} | {100 * comparison.difference:+.1f} |" in row
    )
    assert "avg@4 of 30 (trained)" in row
    assert "3 in notes" in card
    assert "0.0123 nats/token" in card
    # A second evaluation replaces the section; what a person wrote below it stays.
    (checkpoint / "README.md").write_text(f"{card}\n## Licence\n\nApache\n", encoding="utf-8")
    assert update_card(checkpoint, replace(summary, verdict=["Another verdict."]))
    again = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert again.count(BEGIN) == 1
    assert "Another verdict." in again
    assert "Gained" not in again
    assert again.endswith("## Licence\n\nApache\n")
    assert update_card(checkpoint, replace(summary, verdict=["Another verdict."]))
    assert (checkpoint / "README.md").read_text(encoding="utf-8") == again


def test_the_section_has_averages_with_intervals(tmp_path: Path) -> None:
    summary = example(tmp_path, TASKS)
    change, models = summary.average_changes["in-domain"], summary.models
    before, after = (f"{100 * model.averages['in-domain'].mean:.1f}" for model in models[:2])
    cells = f"| {before} | {after} | {points(change.mean)} | {point_range(change.low, change.high)} | | |"
    text = section(summary)
    assert f"| in-domain, average of 4 tasks {cells}" in text
    assert "| overall, average of 8 tasks |" in text
    assert "IFEval, average" not in text, "an average of one task is the task"
    alone = section(replace(summary, against=None, comparisons={}, average_changes={}, models=models[1:]))
    own = models[1].averages["OOD"]
    line = f"| OOD, average of 2 tasks | {100 * own.mean:.1f} | {100 * own.low:.1f}–{100 * own.high:.1f} |"
    assert line in alone
    rows = [row for row in [*text.splitlines(), *alone.splitlines()] if row.startswith("|")]
    assert {row.count("|") for row in rows} == {8, 4}, "every row has all columns"


def test_a_card_of_others_stays_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    summary = example(tmp_path)
    card = checkpoint / "README.md"
    for text in (
        "# My model\n",
        CARD.replace("Trained by `spot train`", "Trained"),
        f"{CARD}\n{BEGIN}\n## Evaluation\n",  # the end was removed by hand
    ):
        card.write_text(text, encoding="utf-8")
        assert not update_card(checkpoint, summary)
        assert card.read_text(encoding="utf-8") == text
    card.write_bytes(b"\xff\xfe")
    assert not update_card(checkpoint, summary)
    card.write_text(CARD, encoding="utf-8")
    (checkpoint / "spot-train.json").unlink()
    assert not update_card(checkpoint, summary)
    assert not update_card(tmp_path / "nowhere", summary)


@pytest.mark.parametrize("name", [*ATTACKS, "marks"])
def test_hostile_text_is_text(name: str, tmp_path: Path) -> None:
    attack = ATTACKS.get(name, f"{END} | x |\n# title {BEGIN} [link](http://evil)")
    summary = example(tmp_path, {attack: ("in-domain", 6, 1, 0.5, 0.5)})
    text = section(
        replace(summary, verdict=[attack], against=attack, overlaps={attack: 1}, versions={"spotcli": attack})
    )
    inner = text.removeprefix(BEGIN).removesuffix(f"{END}\n")
    assert "<" not in inner
    assert not re.search(CONTROL_CHARACTERS, inner)
    assert not re.search(r"(?<!\\)[\[\]`]", inner.replace("`spot eval`", ""))
    # Every row of the table has its seven cells.
    rows = [line for line in inner.splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [8] * 2
