"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import spotcli
from spotcli import decisions, jsonl
from spotcli.errors import DataError, UserError
from spotcli.inspection import page
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.recipe import Recipe
from spotcli.records import Pair
from spotcli.stages.review import Selection, View, review
from tests.inspection.example_pairs import LAUNCH, PAIRS, inspect_file, write_pairs, write_rows
from tests.terminals import Terminal


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path)


def test_quiet_prints_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(data, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_where_selects_pairs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_file(data, where="verdict=right, source~gsm8k")
    text = capsys.readouterr().out
    assert (summary.pairs, summary.matching, summary.ratio_median) == (3, 1, 0.1)
    assert "3 pairs, 1 selected" in text
    assert "== 1/1  word-1" in text
    assert "sum-1" not in text


def test_unknown_id_names_similar_ids(data: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'word-1' or 'word-2'"):
        inspect_file(data, id="Word")
    with pytest.raises(UserError, match="--where 'id~PART'"):
        inspect_file(data, id="x")
    with pytest.raises(UserError, match="does not match --where 'verdict=wrong'"):
        inspect_file(data, id="sum-1", where="verdict=wrong")


def test_limit(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(data, limit=1)
    assert re.findall("^== .*", capsys.readouterr().out, re.MULTILINE) == ["== 1/1  sum-1"]
    inspect_file(data, limit=0)
    assert "== " not in capsys.readouterr().out


def test_page_is_limited_with_a_notice(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "HTML_LIMIT", 2)
    inspect_file(data, html=Path("page.html"))
    assert "contains the first 2 of 3 pairs; --limit changes this" in capsys.readouterr().err
    assert (data.parent / "page.html").read_text(encoding="utf-8").count("<article") == 2
    inspect_file(data, html=Path("page.html"), limit=3)
    assert (data.parent / "page.html").read_text(encoding="utf-8").count("<article") == 3


def test_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_file(write_rows(tmp_path / "data.jsonl", []), html=Path("empty.html"))
    assert (summary.pairs, summary.ratio_mean, summary.shared_prefix) == (0, None, None)
    assert "0 pairs" in capsys.readouterr().out
    assert "0 pairs" in (tmp_path / "empty.html").read_text()


def test_a_file_without_a_readable_row_is_an_error(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [{"prompt": "?", "rejected": "1"}] * 2)
    with pytest.raises(DataError, match=r"data\.jsonl:1: the field 'chosen' is missing"):
        inspect_file(path)
    with pytest.raises(UserError, match=r"data\.jsonl: expected pairs, got problems") as caught:
        inspect_file(write_rows(tmp_path / "data.jsonl", [{"prompt": "?"}]))
    assert str(caught.value.cure).startswith("run `spot sample ")
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="expected a JSON object"):
        inspect_file(path)


def test_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    rows = [{**PAIRS[1], "id": str(number)} for number in range(3000)]
    path = write_rows(tmp_path / "data.jsonl", rows)
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert errors == b""


def test_large_file_is_streamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tracemalloc

    # Each further row may cost its key and a few numbers, but not its 2 kB of text.
    peaks = []
    for number in (300, 3000):
        text = "word " * 200
        rows = [{**PAIRS[1], "id": str(n), "rejected": f"{text}{n}", "chosen": f"{text}-{n}"} for n in range(number)]
        path = write_rows(tmp_path / f"{number}.jsonl", rows)
        del rows
        tracemalloc.start()
        inspect_file(path, quiet=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2700 < 600


def opened(data: Path, *options: str) -> Terminal:
    """The interactive application in a process of its own, when it can be used."""
    source = str(Path(str(spotcli.__file__)).parents[1])
    command = [sys.executable, "-m", "spotcli", "inspect", data.name, *options]
    terminal = Terminal(command, data.parent, data.parent / "screen", {"PYTHONPATH": source})
    until(terminal, lambda: "left" in terminal.text())
    return terminal


def until(terminal: Terminal, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, terminal.text()[-2000:]
        assert terminal.poll() is None or condition(), terminal.text()[-2000:]


def state(data: Path) -> list[str | None]:
    known = decisions.read(data)
    return [known.state(pair) for pair in jsonl.read(data, Pair)]


def test_a_decision_survives_a_kill_at_once(data: Path) -> None:
    terminal = opened(data)
    terminal.press("a")
    until(terminal, lambda: decisions.review_path(data).exists() and state(data)[0] == "accept")
    os.kill(terminal.pid, signal.SIGKILL)
    assert terminal.wait(30) == -signal.SIGKILL
    terminal = opened(data)
    terminal.press("jr2")
    until(terminal, lambda: state(data)[1] == "reject")
    terminal.press("u")
    until(terminal, lambda: state(data)[1] == "accept")  # the field of the row
    terminal.press("q")
    assert terminal.wait(30) == 0
    assert "\x1b[?1049l" in terminal.text()  # the user's screen is back
    assert state(data) == ["accept", "accept", None]


def test_an_audit_prints_the_error_rate(data: Path) -> None:
    terminal = opened(data, "--sample", "2", "--where", "review=none")
    until(terminal, lambda: "2 left" in terminal.text())
    terminal.press("a]")
    until(terminal, lambda: decisions.review_path(data).exists() and len(set(state(data))) == 2)
    terminal.press("r1")
    until(terminal, lambda: "reject" in state(data))
    terminal.press("q")
    assert terminal.wait(30) == 0
    # The exact interval of 1 of 2: 1 - sqrt(0.975) to sqrt(0.975).
    assert "1 of 2 rejected: 1.3 to 98.7 %" in terminal.text()


def test_a_sample_requires_a_terminal(data: Path) -> None:
    source = str(Path(str(spotcli.__file__)).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "spotcli", "inspect", str(data), "--sample", "2"],
        env=os.environ | {"PYTHONPATH": source},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--sample requires the interactive application" in done.stderr


def test_decisions_are_printed_and_filtered(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = list(jsonl.read(data, Pair))
    review_file = decisions.ReviewFile(data)
    review_file.append(
        decisions.Event.model_validate(
            {"time": "", "action": "1", "key": pair.key, "digest": decisions.text_digest(pair), **made}
        )
        for pair, made in ((pairs[0], {"decision": "reject"}), (pairs[2], {"decision": "edited", "chosen": "abd"}))
    )
    review_file.close()
    summary = inspect_file(data)
    assert summary.reviews == {"reject": 1, "accept": 1, "edited": 1}
    assert "[-abc-]{+abd+}" in capsys.readouterr().out
    assert inspect_file(data, where="decision=edited", quiet=True).matching == 1
    assert inspect_file(data, where="decision=none", quiet=True).matching == 0


SCORES = [
    {
        "id": f"p{number}",
        "prompt": f"{number} + 1?",
        "answer": str(number + 1),
        "split": "eval",
        "task": "arithmetic" if number < 3 else "connect4",
        "trial": 0,
        "response": f"It is {number + 1}.\x1b[2J",
        "finish_reason": "length" if number == 1 else "stop",
        "verdict": ("right", "undecided", "wrong", "right")[number],
        "reason": "truncated" if number == 1 else None,
    }
    for number in range(4)
]


def test_scores_are_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "model.jsonl", SCORES)
    summary = review(Recipe(), data=path)
    text = capsys.readouterr().out
    assert isinstance(summary, ScoreSummary)
    assert (summary.answers, summary.matching, summary.reasons) == (4, 4, {"truncated": 1})
    assert summary.tasks["arithmetic"] == {"problems": 3, "right": 1, "wrong": 1, "undecided": 1, "truncated": 1}
    assert "4 answers of an evaluation" in text
    assert "arithmetic      3 problems, right 1, wrong 1, undecided 1 (33.3% right)\n" in text
    assert "== 2/4  p1  trial 0\n  verdict undecided   answer 2   reason truncated   finish truncated\n" in text
    assert "  It is 2.␛[2J\n" in text
    assert "rectify" not in text


def test_scores_are_filtered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "model.jsonl", SCORES)
    summary = review(Recipe(), data=path, selection=Selection(None, "verdict=right, task=connect4"), view=View(1))
    text = capsys.readouterr().out
    assert (summary.matching, "== 1/1  p3" in text, "4 answers of an evaluation, 1 selected" in text) == (1, True, True)
    review(Recipe(), data=path, selection=Selection("p2"))
    assert capsys.readouterr().out.startswith("== 1/1  p2  trial 0\n")
    with pytest.raises(UserError, match=r"did you mean 'p\d' or 'p\d' or 'p\d'"):
        review(Recipe(), data=path, selection=Selection("p"))
    with pytest.raises(UserError, match="the fields are trial, length, id, task"):
        review(Recipe(), data=path, selection=Selection(None, "colour=red"))
    review(Recipe(), data=path, view=View(html=tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<article") == 4


def test_empty_bins_below_the_selected_pairs_are_not_shown(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(data, where="ratio>0.5", limit=0)
    assert re.findall("^[01][.][0-9]+–", capsys.readouterr().out, re.MULTILINE) == ["0.90–"]
