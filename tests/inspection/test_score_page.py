"""Scores in the terminal and as a page, alone and compared with a base model's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.inspection import page
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.recipe import Recipe
from spotcli.stages.review import Selection, View, review
from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS
from tests.page_outline import check_harmless
from tests.score_files import write_evaluation, write_scores


def inspect_scores(path: Path, *, where: str | None = None, id: str | None = None, **view: Any) -> ScoreSummary:
    against = view.pop("against", None)
    selection = Selection(id, where)
    summary = review(Recipe(), data=path, against=against, selection=selection, view=View(**view))
    assert isinstance(summary, ScoreSummary)
    return summary


def test_a_lost_problem_is_a_diff_of_both_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, tuned = write_evaluation(tmp_path)
    summary = inspect_scores(tuned, where="lost")
    text = capsys.readouterr().out
    assert "4 problems, won 1, lost 1, both 1, neither 1" in text
    assert "== 1/1  gone" in text
    assert "40 + 2 = [-42-]{+43+}." in text
    assert "change lost   right 1 to 0 of 2" in text
    assert (summary.matching, summary.changes) == (1, {"arithmetic": {"won": 1, "lost": 1, "both": 1, "neither": 1}})


@pytest.mark.parametrize(
    ("where", "problems"),
    [
        ("lost", ["gone"]),
        ("won", ["new"]),
        ("BOTH", ["kept"]),
        ("neither, task=arithmetic", ["never"]),
        ("verdict=wrong and lost", ["gone"]),
        ("change!=both", ["gone", "new", "never"]),
        ("lost, task=gpqa", []),
    ],
)
def test_where_selects_by_the_change(
    tmp_path: Path, where: str, problems: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, tuned = write_evaluation(tmp_path)
    inspect_scores(tuned, where=where)
    assert re.findall(r"^== \d+/\d+  (\S+)", capsys.readouterr().out, re.MULTILINE) == problems


def test_the_base_model_is_named_or_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, tuned = write_evaluation(tmp_path)
    tuned.with_suffix(".summary.json").unlink()
    with pytest.raises(UserError, match="the scores of the base model were not found") as caught:
        inspect_scores(tuned, where="lost")
    assert "--against" in str(caught.value.cure)
    assert inspect_scores(tuned, against=base, where="lost").matching == 1
    # Without an expression every problem is compared.
    assert inspect_scores(tuned, against=base).matching == 4
    # Without a base model, every answer is shown, as before.
    assert inspect_scores(tuned).matching == 8
    assert "[-" not in capsys.readouterr().out.partition("8 answers of an evaluation\n")[2]


def test_pairs_have_no_change(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "?", "rejected": "1", "chosen": "2"}\n')
    with pytest.raises(UserError, match="only scores are compared with a base model"):
        review(Recipe(), data=path, selection=Selection(where="lost"))


def test_page_of_lost_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, tuned = write_evaluation(tmp_path)
    inspect_scores(tuned, where="lost", html=tmp_path / "lost.html")
    text = (tmp_path / "lost.html").read_text(encoding="utf-8")
    assert text.count("<article") == 1
    assert "<del><i>[-</i>42<i>-]</i></del><ins><i>{+</i>43<i>+}</i></ins>" in text
    assert '<th scope="row">arithmetic</th><td>1</td><td>1</td><td>1</td><td>1</td>' in text
    assert "page written to " in capsys.readouterr().out


def test_page_of_all_answers_is_limited_with_a_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "HTML_LIMIT", 3)
    _, tuned = write_evaluation(tmp_path)
    inspect_scores(tuned, html=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<article") == 3
    assert "contains the first 3 of 8 answers" in capsys.readouterr().err


def test_answers_without_common_text_are_shown_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_scores(tmp_path / "base.jsonl", {"a": "r"}, response="It is forty-two.")
    tuned = write_scores(tmp_path / "tuned.jsonl", {"a": "w"}, response="x = y + z - 100 * q")
    inspect_scores(tuned, against=base, where="lost")
    assert "  base answer\n  It is forty-two.\n\n  tuned answer\n  x = y + z - 100 * q" in capsys.readouterr().out


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_answers_are_harmless(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attack = ATTACKS[name]
    fields = {"task": f"task {attack}", "answer": attack, "source": attack, "extracted": attack}
    base = write_scores(tmp_path / "base.jsonl", {f"id {attack}": "r"}, response=f"same {attack} 1", **fields)
    fields["reason"] = attack
    tuned = write_scores(tmp_path / "tuned.jsonl", {f"id {attack}": "w"}, response=f"same {attack} 2", **fields)
    inspect_scores(tuned, against=base, where="lost")
    shown = capsys.readouterr().out
    assert not re.search(CONTROL_CHARACTERS, shown)
    assert shown.count("\n== ") == 1
    for against in (base, None):
        inspect_scores(tuned, against=against, html=tmp_path / "page.html")
        check_harmless((tmp_path / "page.html").read_text(encoding="utf-8"))
