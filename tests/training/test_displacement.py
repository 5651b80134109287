"""The meters of training: log-probabilities of right answers to other problems, and the similarity of both answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spotcli.cli import app
from spotcli.errors import RecipeError
from spotcli.policies import models
from spotcli.recipe import Recipe
from spotcli.stages.train import TrainSummary, train
from tests.conftest import write_rows
from tests.stages.test_train import PAIRS, apart, metrics, pair, recipe, write

OTHERS = 5
"""Problems with a right answer that are not trained on."""


def sample(number: int, *, verdict: str = "right", **fields: Any) -> dict[str, Any]:
    row = pair(number)
    return {"id": row["id"], "prompt": row["prompt"], "response": row["chosen"], "verdict": verdict, **fields}


def samples() -> list[dict[str, Any]]:
    return [
        *(sample(number) for number in range(PAIRS)),  # trained on
        *(sample(100 + number) for number in range(OTHERS)),
        sample(100, trial=1),  # the same text as the first answer, so that either may be chosen
        sample(200, verdict="wrong"),
        sample(201, response=" "),
        sample(202, split="eval"),
        sample(3, id="another id of a trained problem"),
        {"id": "no sample"},
    ]


@pytest.fixture(scope="module")
def measured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainSummary]:
    """A run of 6 steps that measures both, in float32, with all weights kept exactly."""
    folder = tmp_path_factory.mktemp("measured")
    write(folder, [pair(number) for number in range(PAIRS)])
    write_rows(folder / "samples.jsonl", samples())
    return folder, train(settings(tiny_model), folder=folder)


def settings(model: Path, **section: Any) -> Recipe:
    return recipe(model, displacement_every=2, similarity=True, save_dtype="float32", **section)


def answer_logps(model: Path, tokenizer_of: Path) -> dict[int, tuple[float, int]]:
    """The log-probability and the tokens of each other answer, by a plain forward pass of transformers."""
    import torch

    policy: Any = models.load_model(str(model), "float32")
    tokenizer: Any = models.load_tokenizer(str(tokenizer_of))
    found = {}
    for number in range(100, 100 + OTHERS):
        row = sample(number)
        chat = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(
            [*chat, {"role": "assistant", "content": row["response"]}], return_dict=False
        )
        end = len(prompt) + len(tokenizer(row["response"], add_special_tokens=False)["input_ids"]) + 1
        ids = torch.tensor([whole[:end]])
        with torch.no_grad():
            logps = policy(input_ids=ids).logits.log_softmax(-1)
        scores = logps[0, :-1].gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        found[number] = (float(scores.sum()), len(scores))
    return found


def test_displacement_is_the_change_on_right_answers_to_other_problems(
    measured: tuple[Path, TrainSummary], tiny_model: Path
) -> None:
    folder, summary = measured
    output = folder / "checkpoint"
    rows = metrics(output)
    assert [row["step"] for row in rows if "displacement" in row] == [2, 4, 6]
    before, after = answer_logps(tiny_model, tiny_model), answer_logps(output, output)
    changes = [after[number][0] - before[number][0] for number in before]
    tokens = sum(count for _, count in before.values())
    assert rows[-1]["displacement"] == pytest.approx(math.fsum(changes) / tokens, abs=1e-5)
    assert rows[-1]["displaced"] == sum(change < 0 for change in changes) / OTHERS
    assert abs(rows[-1]["displacement"]) > 1e-3
    assert summary.final["displacement"] == rows[-1]["displacement"]
    assert json.loads((output / "spot-train.json").read_text())["summary"]["similarity"] == summary.similarity


def test_the_meters_do_not_change_the_weights(
    measured: tuple[Path, TrainSummary], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = measured
    write(tmp_path, [pair(number) for number in range(PAIRS)])
    write_rows(tmp_path / "samples.jsonl", samples()[::-1])
    summary = train(recipe(tiny_model, save_dtype="float32", displacement_every="never"), folder=tmp_path)
    assert apart(folder / "checkpoint", tmp_path / "checkpoint") == 0.0
    assert (summary.similarity, "displacement" in summary.final) == (None, False)
    # With a file of samples, the default measures the answers of a short run once, after the last step.
    capsys.readouterr()
    again = train(recipe(tiny_model, save_dtype="float32", output="again"), folder=tmp_path)
    assert "displacement is measured on 5 right answers to other problems of" in capsys.readouterr().err
    assert again.final["displacement"] == pytest.approx(metrics(folder / "checkpoint")[-1]["displacement"], abs=1e-7)


@pytest.mark.parametrize(
    ("rows", "message"),
    [(None, "does not exist"), ([sample(0)], "no right answer to a problem that is not trained on")],
)
def test_a_file_of_samples_that_does_not_serve(
    tiny_model: Path, tmp_path: Path, rows: list[dict[str, Any]] | None, message: str
) -> None:
    write(tmp_path, [pair(number) for number in range(PAIRS)])
    if rows is not None:
        write_rows(tmp_path / "mine.jsonl", rows)
    with pytest.raises(RecipeError, match=message):
        train(recipe(tiny_model, displacement_samples="mine.jsonl"), folder=tmp_path)


def test_similarity_is_that_of_the_states_of_two_separate_passes(
    measured: tuple[Path, TrainSummary], tiny_model: Path
) -> None:
    import torch

    folder, summary = measured
    policy: Any = models.load_model(str(tiny_model), "float32")
    tokenizer: Any = models.load_tokenizer(str(tiny_model))
    row = pair(1)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, return_dict=False
    )
    sums, counts = [], []
    for side in ("chosen", "rejected"):
        # The states after the prompt and after each token of the answer; the last one predicts the end of turn.
        ids = [*prompt, *tokenizer(row[side], add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            states = policy.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, len(prompt) - 1 :]
        sums.append(states.sum(0))
        counts.append(len(states))
    chosen, rejected = sums
    lines = [json.loads(line) for line in (folder / "data.similarity.jsonl").read_text().splitlines()]
    assert len(lines) == PAIRS
    assert lines[1]["ches"] == pytest.approx(float(chosen @ rejected - chosen @ chosen), rel=1e-3)
    chosen, rejected = chosen / counts[0], rejected / counts[1]
    assert lines[1]["ches_normalized"] == pytest.approx(float(chosen @ rejected - chosen @ chosen), rel=1e-3, abs=1e-5)
    assert summary.similarity is not None
    # The 10th and 90th percentile of 20 values are 0.9 of the way from the 2nd to the 3rd, and 0.1 from the 18th on.
    low, middle, high = (summary.similarity[name] for name in ("p10", "p50", "p90"))
    values = sorted(line["ches_normalized"] for line in lines)
    assert low == pytest.approx(0.1 * values[1] + 0.9 * values[2])
    assert middle == pytest.approx((values[9] + values[10]) / 2)
    assert high == pytest.approx(0.9 * values[17] + 0.1 * values[18])
    # The reference and the other answers are in the cache; nothing is computed twice.
    cached = (folder / "reference.jsonl").read_text()
    assert len(cached.splitlines()) == PAIRS + OTHERS
    train(settings(tiny_model, objective="dpo", output="dpo", max_steps=1), folder=folder)
    assert (folder / "reference.jsonl").read_text() == cached


def test_inspect_filters_and_sorts_by_similarity(
    measured: tuple[Path, TrainSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = measured
    monkeypatch.chdir(folder)
    lines = [json.loads(line) for line in (folder / "data.similarity.jsonl").read_text().splitlines()]
    middle = sorted(line["ches_normalized"] for line in lines)[PAIRS // 2]
    command = CliRunner()
    where = ["inspect", "data.jsonl", "--where", f"similarity>={middle!r}"]
    assert json.loads(command.invoke(app, [*where, "--json"]).stdout)["matching"] == PAIRS // 2
    shown = command.invoke(app, ["inspect", "data.jsonl", "--sort", "similarity", "--limit", "1"]).stdout
    nearest = max(range(PAIRS), key=lambda number: lines[number]["ches_normalized"])
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("== ")] == [f"p{nearest}"]


def test_inspect_shows_the_metrics_of_a_run(
    measured: tuple[Path, TrainSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, summary = measured
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    file, command = "checkpoint/metrics.jsonl", CliRunner()
    rows = metrics(folder / "checkpoint")
    shown = command.invoke(app, ["inspect", file]).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()[:1].isdigit()}
    assert list(lines) == ["1", "2", "3", "4", "5", "6"]
    assert f"{rows[3]['displacement']:+.4f}" in lines["4"]
    assert f"{rows[2]['loss']:.4f}" in lines["3"]
    assert "nats per token" in shown
    # Measured steps come first.
    shown = command.invoke(app, ["inspect", file, "--limit", "3"]).stdout
    assert [line.split()[0] for line in shown.splitlines() if line.strip()[:1].isdigit()][:3] == ["2", "4", "6"]
    found = json.loads(command.invoke(app, ["inspect", file, "--json"]).stdout)
    assert (found["rows"], found["steps"], found["damaged"]) == (6, summary.steps, 0)
    assert found["last"]["displacement"] == rows[-1]["displacement"]
    assert found["lowest_displacement"]["step"] == min(rows[1::2], key=lambda row: row["displacement"])["step"]
    refused = command.invoke(app, ["inspect", file, "--where", "loss>1"])
    assert "metrics have no ids and no filter" in str(refused.exception)


def test_similarity_requires_a_reference(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(0)])
    with pytest.raises(RecipeError, match="sft has no reference"):
        train(recipe(tiny_model, objective="sft", similarity=True), folder=tmp_path)
