"""Files of every kind, printed; through real pipes where the process matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spotcli
from spotcli.errors import UserError
from spotcli.inspection.answer_overview import ReplySummary, SampleSummary
from spotcli.inspection.file_overview import FileSummary, MixedSummary
from spotcli.inspection.overview import ReviewSummary
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.recipe import Recipe
from spotcli.stages.review import Selection, View, review
from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS, PAIRS, write_pairs, write_rows
from tests.inspection.example_rows import preference_rows, reply_rows, sample_rows, score_rows, write_scores


def inspect(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose output is a pipe."""
    source = str(Path(str(spotcli.__file__)).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "spotcli", "inspect", path.name, *options],
        cwd=path.parent,
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def matching(path: Path, where: str, *, id: str | None = None) -> int:
    return review(Recipe(), data=path, selection=Selection(id, where), view=View(quiet=True)).matching


def shown(path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[FileSummary, str]:
    summary = review(Recipe(), data=path, **options)
    return summary, capsys.readouterr().out


def test_samples_are_printed_through_a_pipe(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "samples.jsonl", sample_rows())
    done = inspect(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "samples.jsonl  6 samples\n" in done.stdout
    assert "problems        2, 2 with a right answer\n" in done.stdout
    assert "verdict         right 2, wrong 2, undecided 2\n" in done.stdout
    assert "undecided       truncated 2\n" in done.stdout
    assert "finish          stop 4, truncated 2\n" in done.stdout
    assert "tokens          median 20  mean 20  max 30\n" in done.stdout
    assert "cost            $0.0600\n" in done.stdout
    assert "== 3/6  p0  trial 2\n  verdict undecided   answer 1   reason truncated   finish truncated\n" in done.stdout
    assert "  prompt What is 1 + 1?\n\n  We add 1 and 1: 2.\n" in done.stdout


def test_a_summary_of_samples_as_json(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "samples.jsonl", sample_rows())
    done = inspect(path, "--json", "--where", "truncated=no")
    summary = json.loads(done.stdout)
    assert (summary["samples"], summary["matching"], summary["damaged"]) == (6, 4, 0)
    assert summary["verdicts"] == {"right": 2, "wrong": 2}
    # The answers have 10 and 20 tokens, twice.
    assert summary["tokens"] == {"median": 15.0, "mean": 15.0, "largest": 20}


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("verdict=wrong", 2),
        ("finish=length", 2),
        ("truncated=yes and id=p1", 1),
        ("length>30", 4),
        ("tokens>=20", 4),
        ("cost=0.01", 6),
        ("model=tiny, reason=none", 4),
        ("trial=1 or verdict=right", 4),
        ("response~'1 and 1'", 3),
    ],
)
def test_samples_are_filtered(tmp_path: Path, where: str, count: int) -> None:
    assert matching(write_rows(tmp_path / "samples.jsonl", sample_rows()), where) == count


def test_answers_without_a_verdict_are_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "answers.jsonl", [{"prompt": "?", "response": "1"}, {"prompt": "!", "response": "2"}])
    summary, text = shown(path, capsys)
    assert isinstance(summary, SampleSummary)
    assert summary.verdicts == {"none": 2}
    assert "verdict not graded" in text
    assert matching(path, "verdict=none") == 2


def test_replies_are_printed_through_a_pipe(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.replies.jsonl", reply_rows())
    done = inspect(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data.replies.jsonl  5 journal entries\n" in done.stdout
    assert "replies         reply 2, sent 1, free 1, undo 1\n" in done.stdout
    assert "declined        truncated 1\n" in done.stdout
    assert "tokens          prompt_tokens 200, completion_tokens 40\n" in done.stdout
    assert "cost            $0.5000\n" in done.stdout
    assert "== 1/5  p0  trial 0  attempt 0\n  oracle gpt-4o   model gpt-4o-2024-08-06   mode rewrite\n" in done.stdout
    assert "  <corrected>fixed 0</corrected>\n" in done.stdout
    assert "== 3/5  k9  sent\n  $0.5000 was reserved for this request\n" in done.stdout
    assert "undo: a person took this reply back" in done.stdout
    summary = json.loads(inspect(path, "--json", "--where", "truncated=yes").stdout)
    assert (summary["matching"], summary["declined"], summary["finish"]) == (1, {"truncated": 1}, {"length": 1})


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("oracle~gpt", 3),
        ("cost>0.2", 2),
        ("cost=none", 3),
        ("entry=sent", 1),
        ("attempt=1", 1),
        ("reason!=none", 1),
        ("model~2024, length>5", 2),
    ],
)
def test_replies_are_filtered(tmp_path: Path, where: str, count: int) -> None:
    assert matching(write_rows(tmp_path / "x.replies.jsonl", reply_rows()), where) == count


def test_preference_files_of_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "train.jsonl", preference_rows())
    summary, text = shown(path, capsys)
    assert isinstance(summary, ReviewSummary)
    assert (summary.pairs, summary.without_rejected, summary.damaged, summary.duplicates) == (5, 1, 0, 0)
    for line in ("It is [-3-]{+2+}.", "So: [-3-]{+2+}.", "Now [-5-]{+4+}.", "Then [-7-]{+6+}.", "Only 8."):
        assert f"  {line}\n" in text
    assert "  prompt What is 3 + 3?\n" in text
    assert matching(path, "chosen~Now") == 1


@pytest.mark.parametrize("name", ["train.parquet", "train.csv", "train.json", "train.jsonl.gz"])
def test_preferences_in_other_formats(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    rows = preference_rows()[:2] if name != "train.csv" else [preference_rows()[2] | {"source": "a"}]
    if name == "train.parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name == "train.csv":
        path.write_text("prompt,chosen,rejected\nWhat is 2 + 2?,Now 4.,Now 5.\n")
    elif name == "train.json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        import gzip

        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    summary, text = shown(path, capsys)
    assert isinstance(summary, ReviewSummary)
    assert (summary.pairs, summary.damaged) == (len(rows), 0)
    assert ("It is [-3-]{+2+}." in text) is (name != "train.csv")
    assert {item.name for item in tmp_path.iterdir()} == {name}  # printing writes nothing


def test_a_table_names_the_row_of_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("prompt,chosen,rejected\n1 + 1?,2,3\n2 + 2?,,5\n")
    assert "== 2/2  train.csv: row 2  damaged\n  the field 'chosen' is missing" in inspect(path).stdout


def test_damaged_and_duplicate_rows_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(row) for row in PAIRS]
    path.write_text("\n".join([lines[0], "no json \x1b[2J", lines[0], "[1]", lines[1], lines[2][:-9]]))
    done = inspect(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data.jsonl  3 pairs\n" in done.stdout
    assert "3 rows damaged, 1 row with a duplicate key\n" in done.stdout
    assert (
        "== 2/6  data.jsonl:2  damaged\n  invalid JSON (Expecting value); correct or remove that line\n" in done.stdout
    )
    assert "  no json ␛[2J\n" in done.stdout
    assert "  duplicate key: first in line 1; training leaves this row out\n" in done.stdout
    assert "expected a JSON object, got an array" in done.stdout
    assert "== 6/6  data.jsonl:6  damaged\n  the last line is incomplete" in done.stdout
    summary = json.loads(inspect(path, "--json").stdout)
    assert (summary["pairs"], summary["damaged"], summary["duplicates"]) == (3, 3, 1)
    selected = inspect(path, "--where", "ratio>0.2")
    assert "damaged\n  invalid" not in selected.stdout  # a damaged row matches no filter
    assert "3 rows damaged" in selected.stdout


@pytest.mark.parametrize("content", ["no json\n{}\n", '{"a": 1}\n', "[1]\nnull\n", '{"prompt": "?"}\n' * 100])
def test_a_file_without_a_readable_row_ends_with_code_2(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    done = inspect(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cure: " in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_of_several_kinds_are_shown_as_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*PAIRS, *sample_rows(), *reply_rows(), *score_rows("rw")]
    path = write_rows(tmp_path / "mixed.jsonl", rows)
    summary, text = shown(path, capsys)
    assert isinstance(summary, MixedSummary)
    assert (summary.rows, summary.matching) == (16, 16)
    assert list(summary.kinds) == ["pairs", "scores", "samples", "replies"]
    assert "mixed.jsonl  16 rows of 4 kinds\n" in text
    for part in ("change ratio 0.300", "verdict undecided", "mode rewrite", "task sums"):
        assert part in text
    assert json.dumps(summary.as_dict())
    assert matching(path, "verdict=right") == 5  # 2 pairs, 2 samples, 1 score
    assert matching(path, "task=sums") == 2
    assert matching(path, "not task=sums") == 14
    assert matching(path, "ratio>0.2 or cost>0.2") == 4
    assert matching(path, "id=p0") == 5  # 3 samples, a reply and its undo
    with pytest.raises(UserError, match="unknown field 'tsak'"):
        matching(path, "tsak=sums")


def test_an_id_of_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "samples.jsonl", sample_rows())
    summary, text = shown(path, capsys, selection=Selection("p1"))
    assert summary.matching == 3
    assert text.startswith("== 1/3  p1  trial 0\n")
    with pytest.raises(UserError, match="unknown id 'p'"):
        review(Recipe(), data=path, selection=Selection("p"))


def test_scores_are_compared_although_rows_are_damaged(tmp_path: Path) -> None:
    path = write_scores(tmp_path)
    for name in ("base.jsonl", "tuned.jsonl"):
        file = tmp_path / name
        file.write_text("no json\n" + file.read_text() + file.read_text().splitlines()[0] + "\n")
    done = inspect(path, "--where", "lost")
    assert (done.returncode, done.stderr) == (0, "")
    assert "won 1, lost 1, both 1, neither 1" in done.stdout
    assert "== 1/1  q1\n" in done.stdout
    assert "The sum is [-2-]{+99+}." in done.stdout
    assert "1 row damaged, 1 row with a duplicate key\n" in done.stdout


def test_changes_without_a_base_model_name_the_cure(tmp_path: Path) -> None:
    alone = write_rows(tmp_path / "alone.jsonl", score_rows("rw"))
    with pytest.raises(UserError, match="scores of the base model were not found"):
        matching(alone, "lost")
    with pytest.raises(UserError, match="only scores are compared"):
        matching(write_pairs(tmp_path), "lost")
    with pytest.raises(UserError, match="expected scores, got other rows"):
        review(Recipe(), data=alone, against=write_pairs(tmp_path))


def test_samples_have_a_page(tmp_path: Path) -> None:
    rows = sample_rows()
    review(Recipe(), data=write_rows(tmp_path / "samples.jsonl", rows), view=View(html=tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<article") == len(rows)


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_samples_and_replies_are_printed_harmlessly(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    attack = ATTACKS[name]
    texts = ("id", "source", "answer", "response", "reason", "extracted", "oracle", "model", "text", "key", "prompt")
    rows = [
        {key: f"{value} {attack}" if key in texts and value is not None else value for key, value in row.items()}
        for row in [sample_rows()[0], sample_rows()[2], *reply_rows()]
    ]
    rows[0]["sampling"] = {"model": attack}
    path = write_rows(tmp_path / "mixed.jsonl", rows)
    path.write_text(path.read_text() + attack.replace("\n", " ").replace("\r", " ") + "\n")
    summary, text = shown(path, capsys)
    assert (summary.matching, summary.damaged) == (7, 1)
    assert not re.search(CONTROL_CHARACTERS, text)
    assert "\n== 9/9  forged" not in text


def test_a_reply_summary_without_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "cost": None} for row in reply_rows()[:2]]
    summary, text = shown(write_rows(tmp_path / "x.replies.jsonl", rows), capsys)
    assert isinstance(summary, ReplySummary)
    assert (summary.cost, summary.unpriced) == (None, 2)
    assert "cost            unknown (2 replies without a known price)\n" in text


def test_scores_alone_keep_their_overview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary, text = shown(write_scores(tmp_path), capsys)
    assert isinstance(summary, ScoreSummary)
    assert summary.against is None
    assert "4 problems, right 2, wrong 2, undecided 0 (50.0% right)" in text
