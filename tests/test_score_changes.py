"""Expected changes are worked out in tests/score_files.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spotcli.errors import DataError
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.summary import compare_models
from spotcli.jsonl import read
from spotcli.records import Score
from spotcli.score_changes import base_scores, compare_files, compared_answers, count_changes
from tests.score_files import write_evaluation, write_scores


def test_every_problem_has_one_change(tmp_path: Path) -> None:
    changes = compare_files(*write_evaluation(tmp_path))
    assert {key[1]: change.change for key, change in changes.items()} == {
        "kept": "both",
        "gone": "lost",
        "new": "won",
        "never": "neither",
    }
    gone = changes["arithmetic", "gone"]
    assert (gone.base_right, gone.tuned_right, gone.trials) == (1, 0, 2)
    assert count_changes(changes.values()) == {"arithmetic": {"won": 1, "lost": 1, "both": 1, "neither": 1}}


def test_changes_are_those_of_the_evaluation(tmp_path: Path) -> None:
    base, tuned = write_evaluation(tmp_path)
    before, after = (ModelRows(path.stem, str(path), list(read(path, Score))) for path in (base, tuned))
    task = compare_models(before, after, ["arithmetic"], trained=[], margin=0.02)[0]["arithmetic"]
    counts = count_changes(compare_files(base, tuned).values())["arithmetic"]
    assert (len(task.won), len(task.lost), task.both, task.neither) == tuple(counts.values())


def test_the_answers_shown_are_those_that_changed(tmp_path: Path) -> None:
    # lost: base r w r, tuned w r w. Trial 0 is right before and wrong after.
    # swapped: base w r r, tuned r w w has no fewer wins in trial 0, so trial 1 is shown.
    # apart: base r w w w, tuned w w w w only in trial 0; base "ru" and tuned "uw" show the same trial 0.
    base = write_scores(tmp_path / "base.jsonl", {"swapped": "wrr", "apart": "rw", "more": "w"})
    tuned = write_scores(tmp_path / "tuned.jsonl", {"swapped": "rww", "apart": "uw", "more": "rr"})
    changes = {key[1]: change for key, change in compare_files(base, tuned).items()}
    assert (changes["swapped"].change, changes["swapped"].base_trial, changes["swapped"].tuned_trial) == ("lost", 1, 1)
    assert (changes["apart"].change, changes["apart"].base_trial) == ("lost", 0)
    assert (changes["more"].change, changes["more"].trials) == ("won", 1)  # only the trial that both have
    shown = list(compared_answers(base, tuned, [changes["swapped"]]))
    assert [(pair.base.trial, pair.base.verdict, pair.tuned.verdict) for pair in shown] == [(1, "right", "wrong")]


def test_equal_counts_without_a_common_right_trial(tmp_path: Path) -> None:
    # Both models are right once, in different trials: the right answers of both are shown.
    base = write_scores(tmp_path / "base.jsonl", {"a": "rw"})
    tuned = write_scores(tmp_path / "tuned.jsonl", {"a": "wr"})
    change = compare_files(base, tuned)["arithmetic", "a"]
    assert (change.change, change.base_trial, change.tuned_trial) == ("both", 0, 1)


def test_other_prompts_are_refused(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base.jsonl", {"a": "r"})
    tuned = write_scores(tmp_path / "tuned.jsonl", {"a": "w"}, prompt="Another problem")
    with pytest.raises(DataError, match="problem 'a' of the task 'arithmetic' has another prompt in"):
        compare_files(base, tuned)


def test_the_summary_names_the_base_model(tmp_path: Path) -> None:
    base, tuned = write_evaluation(tmp_path / "run")
    assert base_scores(tuned) == base
    assert base_scores(base) is None
    # The folder was moved; the summary has the old path.
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = tmp_path / "moved" / "scores" / "tuned.jsonl"
    assert base_scores(moved) == moved.with_name("base.jsonl")
    # A summary of an earlier version, and one without a base model.
    summary = moved.with_name("tuned.summary.json")
    summary.write_text(json.dumps({"against": "base", "files": [str(base), str(tuned)]}))
    assert base_scores(moved) == moved.with_name("base.jsonl")
    summary.write_text(json.dumps({"against": None, "models": [{"path": str(tuned)}]}))
    assert base_scores(moved) is None
