"""`spot plan` end to end: a tiny model answers the probe, and what is missing is named with its cure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spotcli import jsonl
from spotcli import plan as plan_module
from spotcli.cli import app
from spotcli.errors import SpotError
from spotcli.plan import PROBE
from spotcli.recipe_yaml import load
from spotcli.records import Sample
from spotcli.runs.projection import Probe, Range

RECIPE = """
name: demo
model: {model}
sample: {{problems: problems.jsonl, max_new_tokens: 8, batch_size: 32, trials: 2}}
rectify: {{oracle: {oracle}}}
train: {{batch_size: 4}}
eval: {{tasks: [{task}]}}
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_recipe(tmp_path, tiny_model)
    problems = [{"id": f"p{number}", "prompt": f"{number} + 1", "answer": str(number + 1)} for number in range(50)]
    jsonl.write_rows(tmp_path / "problems.jsonl", problems)
    return tmp_path


def write_recipe(folder: Path, model: Path | str, oracle: str = "symbolic", task: str = "arithmetic") -> None:
    (folder / "recipe.yaml").write_text(RECIPE.format(model=model, oracle=oracle, task=task))


def planned(*options: str) -> tuple[int, dict[str, object], str]:
    """The exit code, the plan, and what is on stderr."""
    result = CliRunner().invoke(app, ["plan", "recipe.yaml", "-o", ".", "--json", *options])
    # The command line turns the error into a message and an exit code.
    code = result.exception.exit_code if isinstance(result.exception, SpotError) else result.exit_code
    return code, json.loads(result.stdout), result.stderr


def test_the_probe_is_the_beginning_of_the_run(folder: Path) -> None:
    code, plan, _ = planned()
    assert code == 0
    rows = list(jsonl.read(folder / "samples.jsonl", Sample))
    assert len(rows) == PROBE
    probe = plan["probe"]
    assert isinstance(probe, dict)
    assert (probe["answers"], probe["total"], probe["trials"]) == (PROBE, 50, 2)
    assert probe["wrong"] + probe["right"] + probe["undecided"] == PROBE
    assert plan["missing"] == []
    stages = plan["stages"]
    assert isinstance(stages, list)
    assert [stage["stage"] for stage in stages] == ["sample", "rectify", "train", "eval"]
    assert stages[0]["what"] == "100 answers to 50 problems"
    # An untrained model has no final answer, so nothing is wrong, and pairs cannot be planned.
    assert [stage["hours"] is not None for stage in stages] == [True, False, probe["wrong"] > 0, True]
    # A second plan asks nothing, and the files of the run do not change.
    before = jsonl.digest(folder / "samples.jsonl")
    assert planned("--no-probe")[0] == 0
    assert planned()[0] == 0
    assert jsonl.digest(folder / "samples.jsonl") == before
    assert not (folder / ".plan.jsonl").exists()


def test_everything_that_is_missing_is_named_at_once(folder: Path) -> None:
    write_recipe(folder, "no/such-model", "gpt-4o", "ifeval-of-tomorrow")
    code, plan, _ = planned()
    assert code == 2
    missing = plan["missing"]
    assert isinstance(missing, list)
    assert {item["stage"] for item in missing} == {"sample", "rectify", "eval"}
    assert all(item["cure"] for item in missing)
    assert "OPENAI_API_KEY" in next(item["problem"] for item in missing if item["stage"] == "rectify")
    text = CliRunner().invoke(app, ["plan", "recipe.yaml", "-o", ".", "--no-probe"])
    assert "cure: export OPENAI_API_KEY=..." in text.stdout


def test_the_price_is_projected_to_all_problems_and_compared_with_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    # The fence of a request is random, and so is its length in tokens.
    monkeypatch.setattr("spotcli.core.oracle_prompts.secrets.token_hex", lambda size: ("0a1b2c3d" * 4)[: 2 * size])
    write_recipe(folder, "builtin:none", "gpt-4o")
    verdicts = ["wrong"] * 2 + ["right"] * 2
    rows = [
        {"id": f"p{n}", "prompt": f"{n} + 1", "answer": str(n + 1), "response": f"It is {n}.", "verdict": verdict}
        for n, verdict in enumerate(verdicts)
    ]
    jsonl.write_rows(folder / "samples.jsonl", [row | {"finish_reason": "stop"} for row in rows])
    jsonl.write_json(folder / "samples.meta.json", {"command": "spot sample", "settings": {}, "complete": True})
    dry = CliRunner().invoke(app, ["rectify", "--recipe", "recipe.yaml", "--dry-run", "--json"])
    each = json.loads(dry.stdout)["estimate"]["likely"] / 2
    code, plan, error = planned("--no-probe", "--max-cost", "0.000001")
    cost = plan["cost"]
    assert isinstance(cost, dict)
    # Half of the answers are wrong: 50 of 100.
    assert cost["likely"] == pytest.approx(50 * each, rel=0.01)
    assert cost["low"] < cost["likely"] < cost["high"]
    assert code == 2  # the model is missing, too
    exceeded = plan["exceeded"]
    assert isinstance(exceeded, list)
    assert exceeded[0].startswith("--max-cost 1e-06 is likely to stop the run")
    assert "sk-test" not in error
    _, batched, _ = planned("--no-probe", "-s", "rectify.batch=true", "-s", "rectify.oracle=gpt-5")
    _, plain, _ = planned("--no-probe", "-s", "rectify.oracle=gpt-5")
    assert isinstance(batched["cost"], dict)
    assert isinstance(plain["cost"], dict)
    assert batched["cost"]["likely"] == pytest.approx(plain["cost"]["likely"] / 2, rel=0.05)
    assert "in batches at half the price" in note(batched)
    assert "assumes 4,000 reasoning tokens per reply" in note(batched)
    assert "batch" not in note(plain)


def note(plan: dict[str, object]) -> str:
    """What the plan says about the price of the oracle."""
    stages = plan["stages"]
    assert isinstance(stages, list)
    return str(stages[1]["note"])


def test_the_policy_as_its_own_oracle_costs_time_and_no_money(folder: Path, tiny_model: Path) -> None:
    write_recipe(folder, tiny_model, "policy")
    rows = [
        {"id": f"p{n}", "prompt": f"{n} + 1", "answer": str(n + 1), "response": f"It is {n}.\n\nYes, {n}."}
        for n in range(4)
    ]
    verdict = {"verdict": "wrong", "finish_reason": "stop", "tokens": 8}
    jsonl.write_rows(folder / "samples.jsonl", [row | verdict for row in rows])
    jsonl.write_json(folder / "samples.meta.json", {"command": "spot sample", "settings": {}, "complete": True})
    planner = plan_module._Planner(load(folder / "recipe.yaml"), folder, None)
    # 4 answers of 8 tokens in 2 s; all are wrong, and 100 answers are expected of 50 problems.
    probe = Probe(problems=4, total=50, trials=2, answers=4, wrong=4, right=0, undecided=0, tokens=32, seconds=2.0)
    stage = plan_module._repair(planner, probe)
    assert planner.missing == []
    assert (stage.dollars, stage.what) == (Range(0.0, 0.0, 0.0), "about 100 wrong answers to policy")
    found = re.search(r"the policy generates at most ([\d,]+) tokens per wrong answer", stage.note)
    assert found
    assert stage.hours == pytest.approx(100 * int(found[1].replace(",", "")) / 16 / 3600, rel=0.01)
