"""Logs in the format of inspect_ai: field by field, as version 0.3.285 reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.inspect_log import write_logs
from spotcli.evaluation.scores import TaskFacts
from spotcli.evaluation.summary import summarise
from spotcli.jsonl import read
from spotcli.records import Score
from tests.evaluation.page.example_evaluation import example
from tests.score_files import write_scores

META = {
    "command": "spot eval",
    "settings": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_new_tokens": 512, "seed": 0},
    "started": "2026-11-28T10:00:00+00:00",
    "finished": "2026-11-28T12:30:00+02:00",
}


def logs(folder: Path, verdicts: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    """The logs of one model, read again."""
    path = write_scores(folder / "scores" / "model.jsonl", verdicts, **more)
    path.with_suffix(".meta.json").write_text(json.dumps(META))
    rows = ModelRows("Qwen/Qwen3-8B", str(path), list(read(path, Score)))
    task = more.get("task", "arithmetic")
    summary = summarise([rows], {task: TaskFacts()}, compared=False, trained=[task], margin=0.02)
    return [json.loads(log.read_bytes()) for log in write_logs(folder / "logs", summary, [rows])]


def test_a_log_has_the_answers_and_the_score(tmp_path: Path) -> None:
    # a: right twice; b: right once, truncated once. Three of four are right.
    [log] = logs(tmp_path, {"a": "rr", "b": "rt"})
    # The header is read without the samples, so they come last.
    assert list(log) == ["version", "status", "eval", "plan", "results", "stats", "samples"]
    assert (log["version"], log["status"]) == (2, "success")
    spec = log["eval"]
    assert (spec["task"], spec["model"], spec["dataset"]["samples"]) == ("arithmetic", "Qwen/Qwen3-8B", 2)
    assert spec["config"] == {"epochs": 2, "epochs_reducer": ["mean"]}
    assert spec["model_generate_config"] == {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_tokens": 512}
    assert spec["created"] == "2026-11-28T10:00:00+00:00"
    assert log["stats"]["completed_at"] == "2026-11-28T10:30:00+00:00"
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.75
    samples = {(sample["id"], sample["epoch"]): sample for sample in log["samples"]}
    assert set(samples) == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}
    truncated = samples["b", 2]
    assert truncated["scores"]["spot"] == {"value": "N", "answer": None, "explanation": "truncated"}
    assert truncated["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert samples["a", 1]["scores"]["spot"]["value"] == "C"
    assert samples["a", 1]["input"] == "What is 40 + 2? (a)"
    assert [message["role"] for message in samples["a", 1]["messages"]] == ["user", "assistant"]
    assert samples["a", 1]["output"]["usage"]["output_tokens"] == 20


def test_messages_keep_the_roles_that_inspect_knows(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role, "extra": 1} for role in ("developer", "user", "assistant", "odd", "user")]
    [log] = logs(tmp_path, {"a": "w"}, prompt=turns)
    [sample] = log["samples"]
    roles = [message["role"] for message in sample["input"]]
    assert roles == ["system", "user", "assistant", "user", "user"]
    assert {frozenset(message) for message in sample["input"]} == {frozenset({"role", "content"})}
    assert sample["scores"]["spot"]["value"] == "I"


def test_odd_names_and_text_stay_inside_the_folder(tmp_path: Path) -> None:
    [log] = logs(tmp_path, {"a\u202e": "r"}, task="../../x y/\u0000", response="\ud800 <script>")
    assert log["eval"]["task"] == "../../x y/\u0000"
    assert log["samples"][0]["output"]["completion"] == "\ufffd <script>"
    [name] = [path.name for path in (tmp_path / "logs").iterdir()]
    # inspect lists files whose names begin with a time, and takes task and id from between underscores.
    assert re.fullmatch(r"2026-11-28T10-00-00\+00-00_x-y_[0-9a-f]{22}\.json", name)


def test_one_log_for_each_model_and_task_which_is_replaced(tmp_path: Path) -> None:
    summary = example(tmp_path)
    answers = [ModelRows(model.model, model.path, list(read(Path(model.path), Score))) for model in summary.models]
    first = write_logs(tmp_path / "logs", summary, answers)
    assert len(first) == 9  # three models, three tasks
    # A file that was started over has another time in its name, and the earlier log is removed.
    for model in summary.models:
        Path(model.path).with_suffix(".meta.json").write_text(json.dumps(META))
    second = write_logs(tmp_path / "logs", summary, answers)
    assert sorted((tmp_path / "logs").iterdir()) == sorted(second)
    assert not set(first) & set(second)
