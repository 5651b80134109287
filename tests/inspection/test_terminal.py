"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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


def test_lines_in_a_pipe_have_at_most_100_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60
    row = {"prompt": f"{long}?", "rejected": f"{long}a\tb", "chosen": f"{long}c\tb"}
    inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    prompt, diff = capsys.readouterr().out.partition("\n\n== ")[2].split("\n\n")[:2]
    # 20 words of 5 characters are 100 columns.
    words = "  " + " ".join(["word"] * 20)
    assert [line.rstrip() for line in diff.split("\n")] == [words] * 3 + ["  [-a-]{+c+}    b"]
    assert max(map(len, prompt.split("\n"))) <= 102
    assert prompt.partition("  prompt ")[2].count("word") == 60


ANSWER = [f"line {number} of the answer" for number in range(30)]


def test_kept_stretches_are_folded_in_a_list_and_whole_by_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [f"{line} is new" if number in (9, 22) else line for number, line in enumerate(ANSWER)]
    rows = [{"id": "long", "prompt": "p", "rejected": "\n".join(ANSWER), "chosen": "\n".join(changed)}]
    path = write_rows(tmp_path / "data.jsonl", rows)
    inspect_file(path)
    lines = capsys.readouterr().out.partition("  prompt p\n\n")[2].splitlines()
    assert lines == [
        "  ⋯ 7 lines without edits",
        *(f"  {line}" for line in ANSWER[7:9]),
        "  line 9 of the answer{+ is new+}",
        *(f"  {line}" for line in ANSWER[10:12]),
        "  ⋯ 8 lines without edits",
        *(f"  {line}" for line in ANSWER[20:22]),
        "  line 22 of the answer{+ is new+}",
        *(f"  {line}" for line in ANSWER[23:25]),
        "  ⋯ 5 lines without edits",
        "",
    ]
    inspect_file(path, id="long")
    text = capsys.readouterr().out
    assert "without edits" not in text
    assert all(line in text for line in ANSWER)


def test_a_line_that_alternates_is_printed_as_old_and_new_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = " and then some more "
    row = {"id": "a", "prompt": "p", "rejected": kept.join("12345"), "chosen": kept.join("67890")}
    inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    lines = capsys.readouterr().out.splitlines()
    assert f"  [-{row['rejected']}-]" in lines
    assert f"  {{+{row['chosen']}+}}" in lines
    # Four edits are shown in the line.
    row = {"id": "a", "prompt": "p", "rejected": kept.join("12345"), "chosen": kept.join("67895")}
    inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    assert f"[-1-]{{+6+}}{kept}[-2-]{{+7+}}" in capsys.readouterr().out


EXAMPLES = "\n".join(f"Q: What is {number} + 1?\nA: {number + 1}\n" for number in range(4))


def test_shared_worked_examples_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"p{number}", "prompt": f"{EXAMPLES}\nQ: What is {number}0 + 5?\nA:", "rejected": "6", "chosen": "5"}
        for number in range(4)
    ]
    path = write_rows(tmp_path / "data.jsonl", rows)
    inspect_file(path)
    text = capsys.readouterr().out
    # Four examples of two lines, each followed by an empty one; the last empty one belongs to the question.
    note = "prompt ⋯ 12 lines that the prompts of all rows begin with\n  Q: What is 20 + 5?\n  A:\n"
    assert note in text
    assert "3 + 1" not in text
    inspect_file(path, id="p2")
    text = capsys.readouterr().out
    assert "begin with" not in text
    assert "Q: What is 3 + 1?" in text
    write_rows(path, [*rows, {**rows[0], "id": "other", "prompt": "Another\none\nwithout\nany\nexample"}])
    inspect_file(path)
    text = capsys.readouterr().out
    assert text.count("⋯ 12 lines that the prompts of 4 rows begin with") == 4
    assert "prompt Another\n  one\n" in text


def test_equal_prompts_are_no_worked_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(f"line {number}" for number in range(7))
    rows = [{"id": "p", "trial": trial, "prompt": lines, "rejected": "6", "chosen": "5"} for trial in range(5)]
    # The beginning of another prompt.
    rows += [{"id": "q", "prompt": f"{lines}\nmore", "rejected": "6", "chosen": "5"}]
    inspect_file(write_rows(tmp_path / "data.jsonl", rows))
    text = capsys.readouterr().out
    assert "begin with" not in text
    assert text.count("line 3\n") == 6


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
    assert "\x1b[30;42m" in text  # insertions have a green background
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not re.search(CONTROL_CHARACTERS, plain)
    # Only the styles that spot uses itself; none from markup in the text.
    assert set(re.findall(r"\x1b\[([0-9;]*)m", text)) <= {"0", "1", "2", "30;41", "30;42", "31", "32", "33", "34", "36"}
    if name == "markup":
        assert "[bold red]x[/] [link=http://evil]y[/link] [@click=evil]z[/]" in re.sub(r"\s*\n\s*", " ", plain)


CUT = {"step": 3, "of": 7, "tokens": 40, "continuations": 8, "right_before": 5, "right_after": 0, "tried": []}


@pytest.mark.parametrize(
    ("cut", "shown"),
    [
        (CUT, "  cut before step 3 of 7, right 5/8 before, 0/8 after\n"),
        (CUT | {"right_after": None}, "  cut before step 3 of 7, right 5/8 before\n"),
        (CUT | {"step": "\x1b[31m"}, None),
        (CUT | {"continuations": 0}, None),
        (CUT | {"step": True}, None),
        ("before step 3", None),
    ],
)
def test_the_head_of_a_pair_says_where_the_policy_cut_its_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: object, shown: str | None
) -> None:
    row = {"prompt": "p", "rejected": "1\n2", "chosen": "1\n3", "oracle": {"name": "policy", "cut": cut}}
    inspect_file(write_rows(tmp_path / "data.jsonl", [row]))
    text = capsys.readouterr().out
    assert (shown or "") in text
    assert ("cut before" in text) == (shown is not None)
