"""``spot trace``, ``spot why`` and ``spot diff`` on a run with a tiny model: what they tell is what happened."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import spotcli
from spotcli import decisions, jsonl
from spotcli.cli import app, main
from spotcli.core.stats import compare
from spotcli.policies.fingerprint import fingerprint
from spotcli.recipe_yaml import load
from spotcli.training.replay import replay
from tests.conftest import write_rows
from tests.score_files import write_scores
from tests.test_cli import complete

WEIGHTS = ("config.json", "model.safetensors")
"""The files of the trained model that its digest is made of."""


def sample_row(n: int, **more: Any) -> dict[str, Any]:
    """A wrong answer that the symbolic oracle can correct; y+ has n more characters than that of n = 0."""
    zeros = "0" * n
    wrong = f"1 * 2{zeros} = 2{zeros}\n2{zeros} + 0 = 3{zeros}\n\\boxed{{3{zeros}}}"
    row = {"id": f"p{n}", "prompt": f"1 * 2{zeros} + 0", "answer": f"2{zeros}", "response": wrong, "verdict": "wrong"}
    return row | {"extracted": f"3{zeros}", "trial": 0, "sampling": {"model": "tiny", "seed": n}} | more


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with samples, pairs, a trained model and scores; one pair was rejected before the training."""
    folder = tmp_path_factory.mktemp("receipts") / "runs" / "first"
    folder.mkdir(parents=True)
    write_rows(folder / "samples.jsonl", [sample_row(n) for n in range(9)] + [sample_row(9, response="?")])
    (folder / "samples.meta.json").write_text(
        json.dumps({"settings": {"model": str(tiny_model), "seed": 4}, "started": "2026-01-01T00:00:00+00:00"})
    )
    spotcli.rectify(oracle="symbolic", folder=folder)
    pairs = spotcli.read(folder / "data.jsonl", spotcli.Pair)
    assert len(pairs) == 9
    decide(folder, pairs[8], "reject", "false step")
    spotcli.train(
        model=str(tiny_model), folder=folder, batch_size=3, num_train_epochs=2, learning_rate=1e-3, logging_steps=1,
        objective="sft", dtype="float32", seed=5,
    )  # fmt: skip
    write_scores(folder / "scores" / "tiny.jsonl", {"q1": "w", "q2": "w", "p3": "w"})
    write_scores(folder / "scores" / "checkpoint.jsonl", {"q1": "r", "q2": "w", "p3": "r"})
    models = [{"path": "scores/tiny.jsonl"}, {"path": "scores/checkpoint.jsonl"}]
    (folder / "scores" / "checkpoint.summary.json").write_text(json.dumps({"against": "tiny", "models": models}))
    return folder


def decide(folder: Path, pair: spotcli.Pair, decision: str, reason: str | None = None, **more: Any) -> None:
    event: dict[str, Any] = {
        "event": "decision",
        "time": "2026-01-02T00:00:00+00:00",
        "who": "ann",
        "action": f"a-{pair.id}",
    }
    event |= {"key": [pair.id, pair.trial], "decision": decision, "reason": reason}
    event |= {"digest": decisions.text_digest(pair), **more}
    with decisions.review_path(folder / "data.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "second"))


def as_json(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exception is None, done.exception
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert done.exception is None, done.exception
    return done.stdout


def test_the_steps_of_a_row_are_those_that_trained_it(run: Path) -> None:
    # The rows of a step are derived. Each y+ has another length, so the tokens that the trainer counted name them.
    lengths = {f"p{n}": len(pair.chosen) + 1 for n, pair in enumerate(spotcli.read(run / "data.jsonl", spotcli.Pair))}
    recipe = load(run / "checkpoint" / "recipe.yaml")
    meta = json.loads((run / "checkpoint" / "spot-train.json").read_text())
    steps: dict[int, list[str]] = {}
    for id in lengths:
        replayed = replay(recipe, run, id, started=meta["started"], review=meta["inputs"]["review"])
        assert (replayed.pairs, replayed.steps) == (8, 6)
        (row,) = replayed.rows
        assert row.left_out == ("rejected in review" if id == "p8" else None)
        for step in row.steps:
            steps.setdefault(step, []).append(id)
    logged = {row["step"]: row for row in jsonl.rows(run / "checkpoint" / "metrics.jsonl")}
    assert {step: sum(lengths[id] for id in ids) for step, ids in steps.items()} == {
        step: row["tokens"] for step, row in logged.items()
    }
    assert {step: len(ids) for step, ids in steps.items()} == {step: row["pairs"] for step, row in logged.items()}
    # The two epochs have every row once, in another order.
    assert sorted(id for step in (1, 2, 3) for id in steps[step]) == [f"p{n}" for n in range(8)]
    assert [sorted(steps[step]) for step in (1, 2, 3)] != [sorted(steps[step]) for step in (4, 5, 6)]


def test_the_story_of_a_row_is_told_in_the_order_of_time(copy: Path) -> None:
    pair = spotcli.read(copy / "data.jsonl", spotcli.Pair)[3]
    decide(copy, pair, "reject", "form or language", time="2999-01-01T00:00:00+00:00")
    told = as_json("trace", "p3", "--in", str(copy))
    kinds = [event["kind"] for event in told["events"]]
    assert kinds == ["problem", "sample", "reply", "pair", "training", "score", "score", "decision"]
    _, sample, reply, made, training, before, after, decision = told["events"]
    assert sample["facts"]["verdict"] == "wrong"
    assert sample["facts"]["sampling"]["seed"] == 3
    assert (reply["facts"]["judgement"], reply["text"]) == ("accepted", pair.chosen)
    assert reply["facts"]["change_ratio"] == pytest.approx(pair.change_ratio)
    assert made["text"] == pair.chosen
    assert len(training["facts"]["steps"]) == 2
    assert all(step["rows"] in (2, 3) and step["loss"] > 0 for step in training["facts"]["steps"])
    assert ("before training" in before["summary"], before["facts"]["verdict"]) == (True, "wrong")
    assert ("after training" in after["summary"], after["facts"]["verdict"]) == (True, "right")
    assert decision["facts"] | {"decision": "reject", "reason": "form or language"} == decision["facts"]
    assert told["missing"] == []
    text = printed("trace", "p3", "--in", str(copy))
    assert "symbolic about answer 0, attempt 1: accepted, change ratio" in text
    assert "ann: reject answer 0: form or language" in text


def test_rows_without_a_pair_and_rejected_ones_say_why(copy: Path) -> None:
    told = as_json("trace", "p9", "--in", str(copy))
    (reply,) = [event for event in told["events"] if event["kind"] == "reply"]
    assert reply["facts"]["judgement"].startswith("declined")
    assert told["missing"] == [f"{copy}/data.jsonl: no pair was made of this row"]
    told = as_json("trace", "p8", "--in", str(copy))
    decision = next(event for event in told["events"] if event["kind"] == "decision")
    assert decision["facts"] | {"reason": "false step", "stale": False, "taken_back": False} == decision["facts"]
    (training,) = [event for event in told["events"] if event["kind"] == "training"]
    assert training["facts"]["left_out"] == "rejected in review"
    # The decision of the run is lost, so the steps are not guessed.
    review = (copy / "data.review.jsonl").read_text()
    (copy / "data.review.jsonl").unlink()
    assert (
        "the decisions of reviewers are not those of the run" in as_json("trace", "p8", "--in", str(copy))["missing"][0]
    )
    (copy / "data.review.jsonl").write_text(review)
    with (copy / "data.review.jsonl").open("a") as file:
        file.write(json.dumps({"event": "undo", "time": "2026-01-03", "action": "a-p8"}) + "\n")
    assert "taken back 2026-01-03" in printed("trace", "p8", "--in", str(copy))


def test_partial_runs_tell_what_there_is(copy: Path) -> None:
    rows = [*jsonl.rows(copy / "data.jsonl")]
    write_rows(copy / "data.jsonl", rows[::-1])
    told = as_json("trace", "p3", "--in", str(copy))
    (lost,) = told["missing"]
    assert "the training steps cannot be derived" in lost
    assert "is not the file that was trained on" in lost
    shutil.rmtree(copy / "checkpoint")
    shutil.rmtree(copy / "scores")
    told = as_json("trace", "p3", "--in", str(copy))
    assert [text.partition(": ")[2].partition(";")[0] for text in told["missing"]] == [
        "not trained yet",
        "not evaluated yet",
    ]
    (copy / "data.jsonl").unlink()
    (copy / "data.replies.jsonl").unlink()
    assert [event["kind"] for event in as_json("trace", "p3", "--in", str(copy))["events"]] == ["problem", "sample"]
    # A problem of the set that was not answered yet.
    (copy / "recipe.yaml").write_text("sample: {problems: problems.jsonl}")
    write_rows(copy / "problems.jsonl", [{"id": "new", "prompt": "1 + 1?", "answer": "2"}])
    assert [event["kind"] for event in as_json("trace", "new", "--in", str(copy))["events"]] == ["problem"]


def test_why_names_what_has_changed_since(copy: Path, tiny_model: Path) -> None:
    told = as_json("why", str(copy / "checkpoint"))
    assert (told["objective"], told["complete"], told["changed"]) == ("sft", True, [])
    states = {source["name"]: source["state"] for source in told["sources"]}
    assert states == dict.fromkeys(("weights", "data", "review", "samples", "model"), "unchanged")
    assert told["seeds"] == {"train": 5, "sample": 4}
    assert told["counts"]["reviewed"] == {"reject": 1}
    assert told["versions"]["spotcli"] == spotcli.__version__
    assert len(told["chat_template"]) == 64
    assert told["parents"] == [{"model": str(tiny_model)}]
    write_rows(copy / "samples.jsonl", [sample_row(0)])
    decide(copy, spotcli.read(copy / "data.jsonl", spotcli.Pair)[2], "reject")
    assert as_json("why", str(copy / "checkpoint"))["changed"] == ["review", "samples"]
    (copy / "data.jsonl").unlink()
    text = printed("why", str(copy / "checkpoint"))
    assert "data.jsonl: MISSING" in text
    assert "! no longer as recorded: data, review, samples" in text
    # A model that another run started from is named with its training.
    meta = json.loads((copy / "checkpoint" / "spot-train.json").read_text())
    child = copy / "child"
    child.mkdir()
    (child / "spot-train.json").write_text(json.dumps(meta | {"inputs": {"model": str(copy / "checkpoint")}}))
    parents = as_json("why", str(child))["parents"]
    assert [parent["model"] for parent in parents] == [str(copy / "checkpoint"), str(tiny_model)]
    assert parents[0]["objective"] == "sft"


def test_why_names_the_weights_by_their_digest(copy: Path) -> None:
    checkpoint = copy / "checkpoint"
    own = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in WEIGHTS}
    told = as_json("why", str(checkpoint))
    weights = next(source for source in told["sources"] if source["name"] == "weights")
    assert weights["facts"] == {"files": own}
    # A run that starts from this model records the same digest as that of its starting policy.
    assert weights["recorded"] == weights["current"] == fingerprint(str(checkpoint))
    assert json.loads((checkpoint / "spot-train.json").read_text())["weights"] == own
    text = printed("why", str(checkpoint))
    assert f"{own['model.safetensors']}  model.safetensors" in text  # as sha256sum prints it

    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(content)
    told = as_json("why", str(checkpoint))
    weights = next(source for source in told["sources"] if source["name"] == "weights")
    assert (weights["state"], weights["facts"]["changed"]) == ("changed", ["model.safetensors"])
    assert told["changed"] == ["weights"]
    assert f"{checkpoint}: CHANGED since" in printed("why", str(checkpoint))

    meta = json.loads((checkpoint / "spot-train.json").read_text())
    del meta["weights"]  # as earlier versions wrote it
    (checkpoint / "spot-train.json").write_text(json.dumps(meta))
    told = as_json("why", str(checkpoint))
    weights = next(source for source in told["sources"] if source["name"] == "weights")
    assert (weights["state"], weights["current"]) == ("not recorded", fingerprint(str(checkpoint)))
    for name in WEIGHTS:
        (checkpoint / name).unlink()
    (checkpoint / "spot-train.json").write_text(json.dumps(meta | {"weights": own}))
    assert as_json("why", str(checkpoint))["changed"] == ["weights"]


def test_diff_compares_settings_data_and_results(run: Path, copy: Path) -> None:
    (run / "recipe.yaml").write_text("name: first  # here\nrectify:\n  gamma: 0.6  # r.yaml:3\nseed: 1  # default\n")
    (copy / "recipe.yaml").write_text("name: second\nrectify:\n  gamma: 0.5  # -s rectify.gamma=0.5\nseed: 1\n")
    rows = [*jsonl.rows(copy / "data.jsonl")]
    write_rows(copy / "data.jsonl", [rows[0] | {"chosen": "other"}, *rows[2:], rows[1] | {"id": "new"}])
    (copy / "scores" / "checkpoint.jsonl").unlink()
    write_scores(copy / "scores" / "checkpoint.jsonl", {"q1": "r", "q2": "r", "p3": "w", "q4": "r"})
    try:
        told = as_json("diff", str(run), str(copy))
        text = printed("diff", str(run), str(copy))
    finally:
        (run / "recipe.yaml").unlink()
    gamma = {"first": 0.6, "second": 0.5, "first_source": "r.yaml:3", "second_source": "-s rectify.gamma=0.5"}
    assert told["settings"] == {"rectify.gamma": gamma}
    assert told["versions"] == {}
    counts = {"first_rows": 9, "second_rows": 9, "same": 7, "differ": 1, "only_first": 1, "only_second": 1}
    assert told["data"]["pairs"] == counts
    assert told["data"]["samples"]["same"] == 10
    base, tuned = told["results"]
    assert (base["model"], base["comparison"]["difference"]) == ("base", 0.0)
    # The test is about the three problems that both answered: q1 right in both, q2 won, p3 lost.
    expected = compare({"q1": [1], "q2": [0], "p3": [1]}, {"q1": [1], "q2": [1], "p3": [0]})
    assert tuned["comparison"]["p_value"] == expected.p_value
    assert (tuned["comparison"]["wins"], tuned["comparison"]["losses"]) == (1, 1)
    assert tuned["second"]["mean"] == 0.75
    assert tuned["note"] == "compared on 3 common answers"
    assert "+ 0.5  (-s rectify.gamma=0.5)" in text
    assert "1 better, 1 worse; p = 1" in text


def test_diff_of_loose_files_and_partial_runs(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_rows(other / "samples.jsonl", [sample_row(0)])
    (other / "samples.meta.json").write_text(json.dumps({"settings": {"seed": 9}, "versions": {"torch": "1"}}))
    told = as_json("diff", str(copy), str(other))
    assert told["settings"]["sample.seed"] == {"first": 4, "second": 9, "first_source": None, "second_source": None}
    assert told["versions"]["sample.torch"]["second"] == "1"
    assert [text for text in told["missing"] if text.startswith(str(other))][1:] == [
        f"{other}: not rectified",
        f"{other}: not trained",
        f"{other}: not evaluated",
    ]
    assert all(result["comparison"] is None for result in told["results"])


@pytest.mark.parametrize(
    ("arguments", "message", "cure"),
    [
        (("trace", "p33", "--in", "runs/second"), "no row has the id 'p33'", "did you mean 'p3'"),
        (("trace", "p3"), ".: the folder has no file of a run", "name the folder of a run"),
        (("trace", "p3", "--in", "nowhere"), "nowhere: folder not found", "name the folder of a run"),
        (("why", "runs/second"), "not a model of `spot train`", "name runs/second/checkpoint"),
        (("why", "nowhere"), "nowhere: folder not found", "name the folder of a trained model"),
        (("diff", "runs/second", "nowhere"), "nowhere: folder not found", "name the folder of a run"),
    ],
)
def test_errors_have_a_cure(
    arguments: tuple[str, ...],
    message: str,
    cure: str,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(copy.parent.parent)
    (copy / "recipe.yaml").write_text("name: second")
    monkeypatch.setattr("sys.argv", ["spot", *arguments])
    monkeypatch.setattr("spotcli.cli._fail", lambda error: (_ for _ in ()).throw(error))
    with pytest.raises(spotcli.UserError) as caught:
        main()
    assert message in str(caught.value)
    assert cure in str(caught.value.cure)
    assert caught.value.exit_code == 2


def test_folders_complete_and_hostile_text_is_escaped(copy: Path) -> None:
    (copy / "recipe.yaml").write_text("name: second")
    assert complete("diff", "r", cwd=copy.parent.parent) == ["runs/second"]
    assert complete("why", "", cwd=copy.parent.parent) == ["runs/second/checkpoint"]
    assert complete("trace", "--in", "runs/second", "p8", cwd=copy.parent.parent) == ["p8"]
    evil = "\x1b]0;owned\x07 [bold]x[/bold]\u202e"
    write_rows(copy / "samples.jsonl", [sample_row(3, response=evil, reason=f"a\nb{evil}", verdict="undecided")])
    text = printed("trace", "p3", "--in", str(copy))
    assert not {"\x1b", "\x07", "\u202e"} & {*text}
    assert "[bold]x[/bold]" in text
    (copy / "checkpoint" / "spot-train.json").write_text(
        json.dumps({"settings": {"objective": evil}, "inputs": {"model": evil}, "versions": {evil: evil}})
    )
    assert not {"\x1b", "\x07", "\u202e"} & {*printed("why", str(copy / "checkpoint"))}
    assert not {"\x1b", "\x07", "\u202e"} & {*printed("diff", str(copy), str(copy))}
