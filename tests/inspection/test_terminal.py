"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS, inspect_file, write_hostile_pair, write_rows


def test_pipe_shows_overview_and_pairs_as_plain_text(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(data)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    overview, first, second, third = text.split("\n== ")
    assert "3 pairs" in overview
    assert "median 0.300  mean 0.433  max 0.900" in overview
    assert "1 pair above gamma 0.6" in overview
    assert re.search(r"dropped: wrong correction +2\n", overview)
    assert re.search(r"0\.90–1\.00 █+ +1\n", overview)
    assert first == (
        "1/3  sum-1\n"
        "  change ratio 0.300   y+ right   oracle symbolic   edits 3 (−3 +3 words)\n"
        "  source arithmetic/train\n"
        "  answer 17\n"
        "  prompt 3 * 4 + 5  (2 earlier turns)\n"
        "\n"
        "  3 * 4 = [-13-]{+12+}\n"
        "  [-13-]{+12+} + 5 = [-18-]{+17+}\n"
    )
    assert "cost $0.0123   review accept" in second
    assert "  Tom has [-3-]{+2+} apples left.\n" in second
    assert third.startswith("3/3  word-2\n  change ratio 0.900   y+ wrong   edits 1 (−1 +3 words)\n")


def test_long_lines_are_not_wrapped_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    row = {"prompt": "p", "rejected": f"{long}a\tb", "chosen": f"{long}c\tb"}
    inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    assert f"  {long}[-a-]{{+c+}}\tb\n" in capsys.readouterr().out


def test_id_selects_one_pair_and_shows_the_whole_prompt(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_file(data, id="sum-1")
    text = capsys.readouterr().out
    assert (summary.pairs, summary.matching, summary.verdicts) == (3, 1, {"right": 1})
    assert text.startswith("== 1/1  sum-1\n")
    # A pair selected by its id shows all turns of its prompt.
    assert "  prompt user 1 + 1\n  assistant \\boxed{2}\n  user 3 * 4 + 5\n" in text


def test_renamed_fields_and_missing_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": "?", "original_answer": "1 2 3 4", "gemini_corrected_answer": "1 2 3 5"}
    summary = inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    captured = capsys.readouterr()
    assert "read 'question' as 'prompt', 'original_answer' as 'rejected'" in captured.err
    # One of four words is new.
    assert (summary.ratio_median, summary.unmeasured) == (0.25, 1)
    assert "1 ratio missing in the file, computed on words" in captured.out
    assert "change ratio 0.250 (on words)   y+ not graded" in captured.out


def test_identical_answers_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_file(write_rows(tmp_path / "data.jsonl", [{"prompt": "?", "rejected": "a", "chosen": "a"}]))
    assert (summary.unchanged, summary.ratio_median, summary.first_edits) == (1, 0.0, [0] * 10)
    text = capsys.readouterr().out
    assert "1 pair with identical y- and y+" in text
    assert text.endswith("\n  a\n\n")


def test_right_answer_is_shown_without_a_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "own", "prompt": "1 + 1", "chosen": "It is 2.", "verdict": "right"}
    summary = inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    assert (summary.pairs, summary.without_rejected, summary.ratio_max) == (1, 1, None)
    assert (summary.unchanged, summary.unmeasured) == (0, 0)
    text = capsys.readouterr().out
    assert "1 row without y-: the policy's own right answers" in text
    assert "change ratio" not in text
    assert text.endswith("\n  It is 2.\n\n")


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_is_harmless_in_a_pipe(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(write_hostile_pair(tmp_path, ATTACKS[name]))
    text = capsys.readouterr().out
    assert not re.search(CONTROL_CHARACTERS, text)
    # Model text is indented, so only the head of a pair begins with ==.
    assert len(re.findall("^==", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_is_harmless_on_a_terminal(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("NO_COLOR", raising=False)
    inspect_file(write_hostile_pair(tmp_path, ATTACKS[name]))
    text = capsys.readouterr().out
    assert "\x1b[1;32m" in text  # the green of insertions
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not re.search(CONTROL_CHARACTERS, plain)
    # Only the styles that spot uses itself; none from markup in the text.
    assert set(re.findall(r"\x1b\[([0-9;]*)m", text)) <= {"0", "1", "2", "9;31", "1;32", "31", "32", "33", "34", "36"}
    if name == "markup":
        assert "[bold red]x[/] [link=http://evil]y[/link] [@click=evil]z[/]" in plain
