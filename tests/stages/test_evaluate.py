"""checkpoint -> scores, on tiny real models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spotcli import jsonl
from spotcli.core.drift import token_kl
from spotcli.errors import DataError, RecipeError, SettingsChanged, UserError
from spotcli.evaluation.answers import slug
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.recipe import Recipe
from spotcli.recipe_yaml import load
from spotcli.records import Score
from spotcli.stages.evaluate import evaluate
from spotcli.stages.rectify import rectify
from spotcli.stages.review import Selection, View, review


def recipe(**keys: Any) -> Recipe:
    options: dict[str, Any] = {"limit": 6, "max_new_tokens": 6, "dtype": "float32"}
    return load(None, None, {f"eval.{name}": value for name, value in (options | keys).items()})


@pytest.fixture
def changed_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with slightly changed weights."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path / "changed"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def test_a_model_against_itself_has_no_gain_and_no_drift(tiny_model: Path, tmp_path: Path) -> None:
    summary = evaluate(recipe(), model=str(tiny_model), against=str(tiny_model), folder=tmp_path)
    comparison = summary.comparisons["arithmetic"].comparison
    assert (comparison.difference, comparison.p_value, comparison.wins, comparison.losses) == (0, 1, 0, 0)
    assert summary.drift is not None
    assert summary.drift.mean == 0
    # 32 prompts, each with at least one token of answer.
    assert summary.drift.tokens >= 32
    score = summary.scores["arithmetic"]
    assert score.right + score.wrong + score.undecided == 6


def test_drift_is_positive_for_changed_weights(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    summary = evaluate(recipe(), model=str(changed_model), against=str(tiny_model), folder=tmp_path)
    assert summary.drift is not None
    assert summary.drift.mean > 1e-3
    written = json.loads((tmp_path / "scores" / f"{slug(str(changed_model))}.summary.json").read_text())
    assert written["drift"] == summary.drift.mean


def test_scores_resume_and_more_trials_add_only_new_answers(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores" / f"{slug(str(tiny_model))}.jsonl"
    evaluate(recipe(), model=str(tiny_model), against=None, folder=tmp_path)
    first = path.read_bytes()
    # As after a kill in the middle of a write.
    path.write_bytes(first[:-40])
    evaluate(recipe(), model=str(tiny_model), against=None, folder=tmp_path)
    assert path.read_bytes() == first
    evaluate(recipe(trials=3), model=str(tiny_model), against=None, folder=tmp_path)
    assert path.read_bytes().startswith(first)
    assert len(list(jsonl.read(path, Score))) == 18


def test_other_weights_under_the_same_name_are_refused(tiny_model: Path, changed_model: Path, tmp_path: Path) -> None:
    evaluate(recipe(), model="changed", against=None, folder=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.save_pretrained(changed_model)
    with pytest.raises(SettingsChanged, match="fingerprint was"):
        evaluate(recipe(), model="changed", against=None, folder=tmp_path)


def test_two_tasks_in_one_evaluation(tiny_model: Path, tmp_path: Path) -> None:
    summary = evaluate(
        recipe(tasks=["arithmetic", "connect4"], limit=2, trials=2),
        model=str(tiny_model),
        against=None,
        folder=tmp_path,
    )
    assert summary.scores["connect4"].undecided == 4  # two boards, two trials, each truncated after six tokens
    assert summary.scores["connect4"].truncated == 4
    assert summary.scores["connect4"].estimate.trials == 4


def test_unknown_tasks_and_models_are_user_errors(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown task 'chess'"):
        evaluate(recipe(tasks=["chess"]), model=str(tiny_model), against=None, folder=tmp_path)
    with pytest.raises(RecipeError, match="at least one task is required"):
        evaluate(recipe(tasks=[]), model=str(tiny_model), against=None, folder=tmp_path)
    with pytest.raises(UserError, match="model folder not found"):
        evaluate(recipe(), model="./nowhere", against=None, folder=tmp_path)


def test_token_kl_by_hand() -> None:
    # Base (1/2, 1/2), policy (1/4, 3/4): 1/2 ln(2) + 1/2 ln(2/3) = 0.346574 - 0.202733 = 0.143841 nats.
    base = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    policy = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log() + 7.0  # a constant does not change the distribution
    assert token_kl(base, policy).tolist() == pytest.approx([0.143841, 0.0], abs=1e-6)


def test_scores_are_marked_inspected_and_refused_as_samples(tiny_model: Path, tmp_path: Path) -> None:
    evaluate(recipe(), model=str(tiny_model), against=None, folder=tmp_path)
    scores = next((tmp_path / "scores").glob("*model.jsonl"))
    assert {row["split"] for row in jsonl.rows(scores)} == {"eval"}
    settings = load(None, None, {"rectify.oracle": "symbolic", "rectify.samples": str(scores)})
    with pytest.raises(DataError, match=r"model\.jsonl:1: this answer belongs to an evaluation"):
        rectify(settings, folder=tmp_path)
    opened = review(settings, data=scores, selection=Selection(None, None), view=View(quiet=True))
    assert isinstance(opened, ScoreSummary)


def test_the_command_stops_with_exit_code_3_and_resumes(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spotcli", "eval", str(tiny_model), "--task", "arithmetic", "--limit", "300"]
    command += ["-s", "eval.max_new_tokens=40", "-s", "eval.batch_size=1"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    while not any(file.stat().st_size for file in tmp_path.glob("scores/*model.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "stopping: finished answers are saved" in stderr
    assert "run the same command again to resume" in stderr
    assert "Traceback" not in stderr
    kept = len(list(jsonl.rows(next(tmp_path.glob("scores/*model.jsonl")))))
    assert 0 < kept < 300
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert len(list(jsonl.rows(next(tmp_path.glob("scores/*model.jsonl"))))) == 300


def test_a_dry_run_checks_the_data_asks_no_model_and_writes_nothing(tmp_path: Path) -> None:
    problems = tmp_path / "far.jsonl"
    problems.write_text("".join(f'{{"prompt": "{index} + 1", "answer": "{index + 1}"}}\n' for index in range(30)))
    command = [sys.executable, "-m", "spotcli", "eval", "no/such-model", "--against", "no/base", "--dry-run", "--json"]
    command += ["--task", "arithmetic", "--task", "far.jsonl", "--trials", "2", "--limit", "20"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    # Two tasks of 20 problems and 2 trials, for two models.
    assert planned["requests"] == 160
    assert [(task["trained"], task["problems"], task["trials"]) for task in planned["tasks"]] == [
        (True, 20, 2),
        (False, 20, 2),
    ]
    assert "cannot prove retention within 2 points: 20 problems with 2 trials" in planned["notes"][0]
    assert [path.name for path in tmp_path.iterdir()] == ["far.jsonl"]
    problems.write_text('{"prompt": "1 + 1"}\nnot JSON\n')
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "far.jsonl:2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trained_task_that_is_not_evaluated_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    settings = recipe(trained=["arithmetics"])
    with pytest.raises(RecipeError, match="'arithmetics' is not among the evaluated tasks"):
        evaluate(settings, model="no/such-model", against=None, folder=tmp_path)
