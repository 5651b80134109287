"""Training a tiny real model: counts, files, settings, errors, and settings that must not change the result."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spotcli import recipe_yaml
from spotcli.errors import DataError, RecipeError, SettingsChanged, SpotError
from spotcli.policies import chat_template, models
from spotcli.policies.pair_encoder import CHOSEN_ONLY, CONTRASTING, PAIRS_ONLY
from spotcli.recipe import Recipe
from spotcli.stages.train import TrainSummary, train
from spotcli.training.model_card import card
from spotcli.training.progress import WINDOW, Report
from spotcli.training.run_folder import RunMeta
from spotcli.training.step_metrics import LOGP_CHANGES
from tests.conftest import set_clock

PAIRS = 20


def pair(number: int, **fields: Any) -> dict[str, Any]:
    a, b = 7 * number % 50 + 3, 11 * number % 40 + 2
    return {
        "id": f"p{number}",
        "prompt": f"{a} + {b}",
        "chosen": f"{a} + {b} = {a + b}, so {a + b}",
        "rejected": f"{a} + {b} = {a + b + 1 + number % 3}. It is" + " wrong" * (number % 4),
        **fields,
    }


def write(folder: Path, rows: list[dict[str, Any]], name: str = "data.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(model: Path, **section: Any) -> Recipe:
    section = {
        "learning_rate": 1e-3, "num_train_epochs": 2, "batch_size": 8, "dtype": "float32", "beta": 0.5, **section,
    }  # fmt: skip
    return Recipe.model_validate({"model": str(model), "train": section})


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def apart(one: Path, two: Path) -> float:
    """The largest difference between the weights of two trained models."""
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary_of(objective: str) -> TrainSummary:
    """The summary of a planned run: 80 pairs, 2 epochs, 20 steps of 8."""
    return TrainSummary(
        checkpoint="checkpoint", objective=objective, pairs=80, rows=80, dropped={}, emitted=0, epochs=2.0,
        batch_size=8, steps=20, tokens=0, shared_tokens=0, shares_prefix=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainSummary]:
    """The folder of a complete spot-bco run, and its summary."""
    folder = tmp_path_factory.mktemp("run")
    rows = [
        *(pair(number) for number in range(PAIRS)),
        pair(100, review="reject"),
        pair(101, chosen="the same", rejected="the same"),
        pair(102, chosen="x" * 300),
        pair(103, review="accept", unknown="kept"),
    ]
    write(folder, rows)
    return folder, train(recipe(tiny_model, max_length=200), folder=folder)


def test_every_row_is_trained_on_or_counted(trained: tuple[Path, TrainSummary]) -> None:
    _, summary = trained
    assert summary.dropped == {
        "rejected in review": 1, "chosen and rejected are the same": 1, "longer than max_length": 1,
    }  # fmt: skip
    assert summary.pairs == PAIRS + 1
    assert summary.rows == summary.pairs + sum(summary.dropped.values()) == PAIRS + 4


def test_summary_and_metrics_of_a_run(trained: tuple[Path, TrainSummary]) -> None:
    folder, summary = trained
    # 21 pairs in steps of 8: 3 steps per epoch, the last one with 5 pairs.
    assert (summary.steps, summary.batch_size, summary.epochs) == (6, 8, 2.0)
    assert summary.shares_prefix
    assert summary.shared_tokens < summary.tokens
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=1e-5)
    assert summary.final["loss"] < 1.3
    assert summary.final["margin"] > 0
    assert json.loads(json.dumps(summary.as_dict()))["checkpoint"] == str(folder / "checkpoint")
    rows = metrics(folder / "checkpoint")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["pairs"] for row in rows] == [8, 8, 5, 8, 8, 5]
    assert {"rewards_chosen", "rewards_rejected", "margin", "tether", "shift", "pairs_per_second"} <= rows[0].keys()


def test_changes_of_the_log_probabilities_are_logged(trained: tuple[Path, TrainSummary]) -> None:
    rows = metrics(trained[0] / "checkpoint")
    # The metrics of the first step are those before any update.
    assert [rows[0][name] for name in LOGP_CHANGES] == pytest.approx([0, 0, 0], abs=1e-5)
    assert rows[-1]["logp_change_rejected_edited"] < -0.01
    assert rows[-1]["logp_change_chosen_edited"] > rows[-1]["logp_change_rejected_edited"]
    assert all(row["tokens_per_second"] > 0 for row in rows)


def test_warnings_about_rewards(capsys: pytest.CaptureFixture[str]) -> None:
    from spotcli.console import progress

    row = {"loss": 0.5, "rewards_chosen": 0.4, "rewards_rejected": 0.2, "margin": 0.2, "pairs": 8, "seconds": 1.0,
           "pairs_per_second": 8.0, "tokens_per_second": 80.0, "steps": 20}  # fmt: skip
    with progress("pairs") as display:
        report = Report(display, summary_of("reward-sft"), 0)
        for step in range(1, WINDOW):
            report({"step": step, **row})
        assert "pull-up" not in capsys.readouterr().err
        report({"step": WINDOW, **row})
        report({"step": WINDOW + 1, **row})
        assert capsys.readouterr().err.count("pull-up") == 1
        for step in range(WINDOW):
            report({"step": step, **row, "rewards_chosen": -1.0})
        assert "the chosen answers are less likely than at the start" in capsys.readouterr().err


def test_shift_follows_the_rewards_of_earlier_steps(trained: tuple[Path, TrainSummary]) -> None:
    rows = metrics(trained[0] / "checkpoint")
    d = 0.0
    for row in rows:
        assert row["shift"] == pytest.approx(d, abs=1e-6)
        d = 0.9 * d + 0.1 * (row["rewards_chosen"] + row["rewards_rejected"]) / 2


def test_output_folder_loads_as_a_model(trained: tuple[Path, TrainSummary], tiny_model: Path) -> None:
    output = trained[0] / "checkpoint"
    names = {path.name for path in output.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "recipe.yaml", "spot-train.json"} <= names
    assert not [name for name in names if name.startswith("checkpoint-")]
    assert apart(output, tiny_model) > 1e-4
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tiny_model, output))
    assert after == before
    model: Any = models.load_model(str(output))
    tokenizer = models.load_tokenizer(str(output))
    prompt = chat_template.render(tokenizer, [{"role": "user", "content": "1 + 1"}])
    import torch

    assert model.generate(torch.tensor([prompt]), max_new_tokens=2, do_sample=False).shape[1] > len(prompt)


def test_model_card_of_a_run(trained: tuple[Path, TrainSummary], tiny_model: Path) -> None:
    import yaml

    folder, summary = trained
    text = (folder / "checkpoint" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    # The base model is a folder, so the front matter has no base_model; the licence is that of the base model.
    assert yaml.safe_load(front) == {
        "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["spot", "surgical-post-training", "spot-bco"],
    }  # fmt: skip
    digest = json.loads((folder / "checkpoint" / "spot-train.json").read_text())["inputs"]["data"]
    for part in (
        str(tiny_model), "21 pairs", "6 steps of 8 pairs", digest, "1 rejected in review", "| beta | 0.5 |",
        "| learning_rate | 0.001 |", f"| loss | {summary.final['loss']:.4g} |", "| first loss | 1.386 |", "torch 2",
    ):  # fmt: skip
        assert part in body, part


def test_model_card_has_decisions_and_the_audit(trained: tuple[Path, TrainSummary]) -> None:
    meta = RunMeta.read(trained[0] / "checkpoint" / "spot-train.json")
    assert meta is not None
    assert meta.summary is not None
    assert "audit" not in card(meta, lora=False)
    audit = {"seed": 3, "text": "7 of 100 rejected: 2.9 to 13.9 %", "current": True}
    summary = replace(meta.summary, reviewed={"reject": 2, "edited": 1}, audit=audit)
    text = card(replace(meta, summary=summary), lora=False)
    assert "- decisions of reviewers: 1 edited, 2 reject\n" in text
    line = "- audit of a random sample (seed 3): 7 of 100 rejected: 2.9 to 13.9 % (exact 95 % interval)\n"
    assert line in text
    summary = replace(summary, audit={**audit, "current": False})
    assert "(seed 3) of an earlier version: 7 of 100" in card(replace(meta, summary=summary), lora=False)


def test_model_card_names_a_base_model_of_the_hub(trained: tuple[Path, TrainSummary]) -> None:
    meta = RunMeta.read(trained[0] / "checkpoint" / "spot-train.json")
    assert meta is not None
    text = card(replace(meta, inputs={**meta.inputs, "model": "Qwen/Qwen3-8B"}), lora=True)
    assert 'base_model: "Qwen/Qwen3-8B"' in text
    assert "library_name: peft" in text
    meta = replace(meta, inputs={**meta.inputs, "model": "evil\n---\nlicense: mit"})
    assert "\nlicense: mit" not in card(meta, lora=True).split("---\n")[1]


def test_rerun_of_a_complete_run_does_nothing(trained: tuple[Path, TrainSummary], tiny_model: Path) -> None:
    folder, summary = trained
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoint").iterdir()}
    assert train(recipe(tiny_model, max_length=200), folder=folder) == summary
    same = recipe(tiny_model, max_length=200).model_copy(update={"model": f"{tiny_model}/"})
    assert train(same, folder=folder) == summary
    assert {path: path.stat().st_mtime_ns for path in (folder / "checkpoint").iterdir()} == before


def test_other_settings_are_an_error_with_their_names(trained: tuple[Path, TrainSummary], tiny_model: Path) -> None:
    folder, _ = trained
    with pytest.raises(SettingsChanged, match=r"beta was 0.5, now 0.7; learning_rate was 0.001, now 0.002"):
        train(recipe(tiny_model, max_length=200, beta=0.7, learning_rate=2e-3), folder=folder)


def test_settings_that_do_not_change_the_weights_may_differ(
    trained: tuple[Path, TrainSummary], tiny_model: Path
) -> None:
    folder, summary = trained
    assert train(recipe(tiny_model, max_length=200, save_steps=2, logging_steps=3), folder=folder) == summary


def test_other_data_is_an_error(trained: tuple[Path, TrainSummary], tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(trained[0] / "checkpoint", tmp_path / "checkpoint")
    write(tmp_path, [pair(number) for number in range(5)])
    with pytest.raises(SettingsChanged, match="data was"):
        train(recipe(tiny_model, max_length=200), folder=tmp_path)


def test_fresh_renames_the_old_folder(trained: tuple[Path, TrainSummary], tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(trained[0] / "checkpoint", tmp_path / "checkpoint")
    write(tmp_path, [pair(number) for number in range(5)])
    assert train(recipe(tiny_model, num_train_epochs=1), folder=tmp_path, fresh=True).pairs == 5
    assert (tmp_path / "checkpoint.old-1" / "model.safetensors").is_file()


def test_folder_with_other_files_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(5)])
    write(tmp_path / "checkpoint", [], "thesis.txt")
    with pytest.raises(SettingsChanged, match="not empty"):
        train(recipe(tiny_model), folder=tmp_path)


def test_no_pair_left_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(1, review="reject"), pair(2, review="reject")])
    with pytest.raises(DataError, match="2 rejected in review"):
        train(recipe(tiny_model), folder=tmp_path)


def test_dry_run_loads_no_weights(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [pair(number) for number in range(PAIRS)])
    monkeypatch.setattr(models, "load_model", lambda *given: pytest.fail("weights were loaded"))
    summary = train(recipe(tiny_model), folder=tmp_path, dry_run=True)
    assert (summary.pairs, summary.steps, summary.batch_size) == (PAIRS, 6, 8)
    assert summary.tokens > summary.shared_tokens > 0
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"learnig_rate": 1}, "did you mean 'learning_rate'"),
        ({"objectiv": "dpo"}, "did you mean 'objective'"),
        ({"output_dir": "x"}, "train.output"),
        ({"bf16": True}, "train.dtype"),
        ({"eval_strategy": "steps"}, "spot eval"),
        ({"batch_size": 10, "per_device_train_batch_size": 4}, "does not fit"),
        ({"batch_size": 8, "processes": 3}, "does not fit"),
        ({"tokens_per_micro_batch": 500, "per_device_train_batch_size": 4}, "mutually exclusive"),
        ({"report_to": ["tensorboard"]}, "tensorboard is not installed"),
        ({"lr_scheduler_type": "triangle"}, "unknown value 'triangle'"),
    ],
)
def test_invalid_keys_are_errors_before_weights_are_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], words: str
) -> None:
    write(tmp_path, [pair(number) for number in range(5)])
    monkeypatch.setattr(models, "load_model", lambda *given: pytest.fail("weights were loaded"))
    monkeypatch.setattr("spotcli.training.keys.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=words):
        train(recipe(tiny_model, **section), folder=tmp_path)


def test_wandb_without_a_key_is_an_error_before_weights_are_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [pair(number) for number in range(5)])
    monkeypatch.setattr(models, "load_model", lambda *given: pytest.fail("weights were loaded"))
    # wandb 0.31 without a login.
    (tmp_path / "wandb.py").write_text("def login(*, prompt, verify):\n    assert not prompt\n    return False\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(RecipeError, match="wandb has no API key"):
        train(recipe(tiny_model, report_to=["wandb"]), folder=tmp_path)
    monkeypatch.delitem(sys.modules, "wandb")
    # Offline mode requires no key, so the run continues until it loads the model.
    monkeypatch.setenv("WANDB_MODE", "offline")

    def no_weights(*given: Any) -> None:
        raise LookupError("weights")

    monkeypatch.setattr(models, "load_model", no_weights)
    with pytest.raises(LookupError, match="weights"):
        train(recipe(tiny_model, report_to=["wandb"]), folder=tmp_path)


def test_missing_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the model is missing"):
        train(Recipe(), folder=tmp_path)


# Plain gradient descent: Adam divides by the size of the gradient, which amplifies rounding errors.
SGD = {"optim": "sgd", "learning_rate": 0.1}


@pytest.mark.parametrize("objective", ["spot-bco", "sft"])
def test_accumulation_does_not_change_the_weights(tiny_model: Path, tmp_path: Path, objective: str) -> None:
    # 36 pairs in steps of 16, as 1 x 16 and as 4 x 4; the last step of an epoch has 4 pairs.
    write(tmp_path, [pair(number) for number in range(36)])
    folders = []
    for micro in (16, 4):
        layout = {"batch_size": 16, "per_device_train_batch_size": micro}
        train(recipe(tiny_model, objective=objective, output=f"micro{micro}", **layout, **SGD), folder=tmp_path)
        folders.append(tmp_path / f"micro{micro}")
    assert apart(*folders) < 2e-6
    assert apart(folders[0], tiny_model) > 1e-4
    one, two = (metrics(folder) for folder in folders)
    for name in ("loss", "shift") if objective == "spot-bco" else ("loss",):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in two], abs=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_tokens_per_micro_batch_does_not_change_the_weights(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    from spotcli.core.forward.packing import pack

    write(tmp_path, [pair(number) for number in range(36)])
    train(recipe(tiny_model, output="pairs", batch_size=16, share_prefix=share, **SGD), folder=tmp_path)
    rows: list[int] = []

    def recorded(*given: Any, **options: Any) -> Any:
        batch = pack(*given, **options)
        rows.append(batch.ids_RL.numel())
        return batch

    monkeypatch.setattr("spotcli.training.trainer.pack", recorded)
    budget = {"batch_size": 16, "tokens_per_micro_batch": 400, "share_prefix": share}
    summary = train(recipe(tiny_model, output="tokens", **budget, **SGD), folder=tmp_path)
    assert (summary.batch_size, summary.steps) == (16, 6)
    assert 200 < max(rows) <= 400
    assert apart(tmp_path / "pairs", tmp_path / "tokens") < 2e-6
    one, two = metrics(tmp_path / "pairs"), metrics(tmp_path / "tokens")
    assert [row["pairs"] for row in two] == [16, 16, 4, 16, 16, 4]
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in two], abs=1e-5)


def test_pair_larger_than_a_micro_batch_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(5)])
    with pytest.raises(RecipeError, match="expected at most 20 per micro-batch") as caught:
        train(recipe(tiny_model, tokens_per_micro_batch=20), folder=tmp_path)
    assert "max_length" in str(caught.value.cure)


@pytest.mark.parametrize("objective", ["spot-bce", "dpo", "reward-sft", "dft"])
def test_sharing_prefixes_does_not_change_the_weights(tiny_model: Path, tmp_path: Path, objective: str) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    for share in (True, False):
        settings = recipe(tiny_model, objective=objective, output=str(share), share_prefix=share, **SGD)
        assert train(settings, folder=tmp_path).shares_prefix == share
    assert apart(tmp_path / "True", tmp_path / "False") < 2e-6
    assert apart(tmp_path / "True", tiny_model) > 1e-4


def test_gradient_checkpointing_does_not_change_the_weights(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    for name, section in (("plain", {}), ("checked", {"gradient_checkpointing": True})):
        train(recipe(tiny_model, output=name, **SGD, **section), folder=tmp_path)
    assert apart(tmp_path / "plain", tmp_path / "checked") < 1e-6


def test_reference_is_cached_for_all_runs_of_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(6)])
    cache = tmp_path / "reference.jsonl"
    train(recipe(tiny_model, output="one", num_train_epochs=1), folder=tmp_path)
    first = cache.read_text()
    assert first.count("\n") == 6
    train(recipe(tiny_model, output="two", num_train_epochs=1, objective="dpo", beta=0.1), folder=tmp_path)
    assert cache.read_text() == first
    # Added pairs and another precision are computed; cached rows stay.
    write(tmp_path, [pair(number) for number in range(7)])
    train(recipe(tiny_model, output="three", num_train_epochs=1), folder=tmp_path)
    train(recipe(tiny_model, output="four", num_train_epochs=1, dtype="bfloat16"), folder=tmp_path)
    assert cache.read_text().startswith(first)
    assert cache.read_text().count("\n") == 6 + 1 + 7


def test_template_with_todays_date_trains_on_the_sampled_prompt(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spotcli.core.forward.packing import pack
    from spotcli.policies.prompter import Prompter

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    template = model / "chat_template.jinja"
    template.write_text("Today: {{ strftime_now('%d %B %Y') }}\n" + template.read_text())
    rows = [pair(number) for number in range(8)]
    write(tmp_path, rows)
    set_clock(monkeypatch, "2031-03-01")
    sampled = {tuple(Prompter(str(model), {}).ids([{"role": "user", "content": row["prompt"]}])) for row in rows}
    train(recipe(model, num_train_epochs=1), folder=tmp_path)
    reference = (tmp_path / "reference.jsonl").read_text()
    assert "gets 2024-07-26, as in sampling" in capsys.readouterr().err

    trained: set[tuple[int, ...]] = set()

    def recorded(pairs: Any, **options: Any) -> Any:
        trained.update(each.prompt_ids for each in pairs)
        return pack(pairs, **options)

    monkeypatch.setattr("spotcli.training.trainer.pack", recorded)
    set_clock(monkeypatch, "2031-03-02")
    train(recipe(model, num_train_epochs=1, output="tomorrow"), folder=tmp_path)
    assert trained == sampled
    assert (tmp_path / "reference.jsonl").read_text() == reference
    assert apart(tmp_path / "checkpoint", tmp_path / "tomorrow") == 0.0


def test_wrong_reference_stops_the_run(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    train(recipe(tiny_model, output="one", num_train_epochs=1), folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "reference.jsonl").read_text().splitlines()]
    write(tmp_path, [row | {"chosen": row["chosen"] - 1.0} for row in rows], "reference.jsonl")
    with pytest.raises(SpotError, match=r"expected 1\.386294"):
        train(recipe(tiny_model, output="two", num_train_epochs=1), folder=tmp_path)
    assert not (tmp_path / "two" / "model.safetensors").exists()


def test_bfloat16_products_over_float32_weights(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    train(recipe(tiny_model, output="exact", learning_rate=1e-4), folder=tmp_path)
    summary = train(recipe(tiny_model, output="low", learning_rate=1e-4, dtype="bfloat16"), folder=tmp_path)
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=0.02)
    assert 0 < apart(tmp_path / "exact", tmp_path / "low") < 1e-3


def test_lora_saves_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    summary = train(
        recipe(tiny_model, lora={"r": 4, "alpha": 8}, gradient_checkpointing=True, num_train_epochs=5), folder=tmp_path
    )
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=1e-5)
    assert summary.final["loss"] < 1.38
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert "model.safetensors" not in names
    base, adapted = models.load_model(str(tiny_model)), models.load_model(str(tmp_path / "checkpoint"))
    import torch

    ids = torch.tensor([[5, 6, 7, 8]])
    assert (base(ids).logits - adapted(ids).logits).abs().max() > 1e-4


def test_unsupported_architecture_does_not_share_prefixes(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"use_bidirectional_attention": True}))
    write(tmp_path, [pair(number) for number in range(8)])
    assert not train(recipe(folder), folder=tmp_path, dry_run=True).shares_prefix
    assert "prompt and common beginning are computed twice: the attention of the model" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="cannot share prefixes"):
        train(recipe(folder, share_prefix=True), folder=tmp_path)


def test_training_arguments_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {learning_rate: 5e-6, share_prefix: off, batch_size: 16}\n")
    section = recipe_yaml.load(path).train
    assert section.training_arguments == {"learning_rate": 5e-6}
    assert (section.share_prefix, section.batch_size) == (False, 16)


@pytest.mark.parametrize("objective", ["sft", "dft"])
def test_rows_without_a_rejected_answer_train_with_sft_and_dft(
    tiny_model: Path, tmp_path: Path, objective: str
) -> None:
    bare = [{name: value for name, value in pair(number).items() if name != "rejected"} for number in range(9)]
    write(tmp_path / "bare", bare)
    write(tmp_path / "whole", [pair(number) for number in range(9)])
    for share in (True, False):
        options = {"objective": objective, "share_prefix": share, "num_train_epochs": 1}
        summary = train(recipe(tiny_model, output=f"out-{share}", **options), folder=tmp_path / "bare")
        assert (summary.rows, summary.pairs, summary.dropped) == (9, 9, {})
        train(recipe(tiny_model, output=f"out-{share}", **options), folder=tmp_path / "whole")
        # y- is not part of the loss; without it, only the batches and their rounding differ.
        assert apart(tmp_path / "bare" / f"out-{share}", tmp_path / "whole" / f"out-{share}") < 1e-5


def kept(number: int) -> dict[str, Any]:
    """A right answer to keep: a row without a rejected one."""
    return {"id": f"k{number}", "prompt": f"{number} + 1", "chosen": f"{number} + 1 = {number + 1}"}


@pytest.mark.parametrize("objective", ["spot-bco", "spot-bce", "reward-sft"])
def test_rows_without_a_rejected_answer_train_beside_pairs(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str
) -> None:
    # 7 pairs and 4 rows without y-, in steps of 8: the last step of an epoch has 3 rows.
    write(tmp_path, [*(pair(number) for number in range(7)), *(kept(number) for number in range(4))])
    layouts: dict[str, dict[str, Any]] = {"whole": {}}
    if objective == "spot-bco":
        layouts |= {"separate": {"share_prefix": False}, "small": {"per_device_train_batch_size": 2}}
    for name, layout in layouts.items():
        settings = recipe(tiny_model, objective=objective, output=name, shift=0.2, **layout, **SGD)
        summary = train(settings, folder=tmp_path)
        assert (summary.rows, summary.pairs, summary.unpaired, summary.dropped) == (11, 11, 4, {})
        assert apart(tmp_path / "whole", tmp_path / name) < 2e-6
    assert apart(tmp_path / "whole", tiny_model) > 1e-4
    assert "11 of 11 pairs, 4 of them without a rejected answer" in capsys.readouterr().err
    rows = metrics(tmp_path / "whole")
    assert [row["pairs"] for row in rows] == [8, 3, 8, 3]
    assert sum(row.get("unpaired", 0) for row in rows) == 2 * 4
    # The answers to keep are raised as well.
    assert rows[2]["rewards_kept"] > rows[0]["rewards_kept"] == pytest.approx(0, abs=1e-5)
    # -log s(-d) - log s(d) of a pair and -log s(-d) of a row without y-; reward-sft has no shift.
    terms = {"spot-bco": (1.396278, 0.798139), "spot-bce": (1.386294, 0.693147), "reward-sft": (0.693147, 0.693147)}
    unpaired = rows[0]["unpaired"]
    expected = ((8 - unpaired) * terms[objective][0] + unpaired * terms[objective][1]) / 8
    assert rows[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_the_shift_follows_the_rewards_of_pairs_only(tiny_model: Path, tmp_path: Path) -> None:
    # Steps of one row: those of rows without y- have no rewards of pairs and leave d as it is.
    write(tmp_path, [*(pair(number) for number in range(3)), *(kept(number) for number in range(3))])
    train(recipe(tiny_model, batch_size=1, shift_decay=0.5, learning_rate=1e-2), folder=tmp_path)
    d, steps = 0.0, metrics(tmp_path / "checkpoint")
    for row in steps:
        assert row["shift"] == pytest.approx(d, abs=1e-6)
        assert ("rewards_chosen" in row) != ("rewards_kept" in row)
        if "rewards_chosen" in row:
            d = 0.5 * d + 0.5 * (row["rewards_chosen"] + row["rewards_rejected"]) / 2
    assert sum("rewards_kept" in row for row in steps) == 6
    assert d != 0


def test_dpo_leaves_out_rows_without_a_rejected_answer(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(0), pair(1), kept(2)])
    summary = train(recipe(tiny_model, objective="dpo", num_train_epochs=1), folder=tmp_path)
    assert (summary.rows, summary.pairs, summary.dropped) == (3, 2, {"no rejected answer": 1})


@pytest.mark.parametrize("objective", CONTRASTING)
def test_a_file_without_any_rejected_answer_is_an_error(tiny_model: Path, tmp_path: Path, objective: str) -> None:
    write(tmp_path, [kept(0), kept(1)])
    with pytest.raises(DataError, match="requires rejected answers, and none of the 2 rows has one") as caught:
        train(recipe(tiny_model, objective=objective), folder=tmp_path, dry_run=True)
    assert "reward-sft, sft or dft" in str(caught.value.cure)


def test_lists_of_objectives_agree_with_the_losses() -> None:
    from spotcli.core.loss import OBJECTIVES

    assert set(CHOSEN_ONLY) == {name for name, objective in OBJECTIVES.items() if not objective.rejected}
    assert set(PAIRS_ONLY) == {name for name, objective in OBJECTIVES.items() if not objective.keeps}
    assert set(CONTRASTING) == {name for name, objective in OBJECTIVES.items() if objective.contrast}
