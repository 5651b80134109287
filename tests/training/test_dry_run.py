"""``spot train --dry-run``: estimates from config.json alone."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl, recipe_yaml
from spotcli.core.costs import DEVICES
from spotcli.decisions import Audit, Event, ReviewFile, text_digest
from spotcli.errors import RecipeError, UserError
from spotcli.records import Pair
from spotcli.stages.train import TrainSummary, train
from tests.stages.test_train import pair, recipe, write

RECIPES = Path(__file__).parent.parent.parent / "recipes"

# The published sizes of Qwen3-8B.
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288,
    "vocab_size": 151936, "tie_word_embeddings": False, "dtype": "bfloat16", "max_position_embeddings": 40960,
}  # fmt: skip


def config_only(tmp_path: Path, pairs: int = 64) -> Path:
    """A model folder with config.json only, and pairs with long answers."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(QWEN3_8B))
    steps = " and then another step of it" * 100
    rows = [
        pair(number, chosen=f"first {number}{steps} so 4", rejected=f"first {number}{steps} so 5")
        for number in range(pairs)
    ]
    write(tmp_path, rows)
    return tmp_path / "model"


def plan(name: str, tmp_path: Path, *overrides: str, **options: Any) -> TrainSummary:
    loaded = recipe_yaml.load(RECIPES / name, [f"model={config_only(tmp_path)}", *overrides])
    return train(loaded, folder=tmp_path, dry_run=True, **options)


def test_8b_model_is_planned_without_weights_or_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = plan("qwen3-8b.yaml", tmp_path)
    costs = summary.estimate
    assert costs is not None
    assert (costs.parameters, costs.trained) == (8_190_735_360, 8_190_735_360)
    assert (costs.device, costs.devices, costs.memory_available) == ("h800", 8, 80)
    assert (summary.pairs, summary.steps) == (64, 4)
    # 6 * 8.2e9 operations per token, a fourth pass for checkpointing, and the reference: 10 * 6.9e9 at least.
    total = sum(costs.operations.values())
    assert total == pytest.approx(10 * 6.95e9 * summary.shared_tokens * 1.8, rel=0.1)
    assert costs.minutes == pytest.approx(total / (8 * DEVICES["h800"].teraflops * 1e12 * 0.4) / 60)
    assert 35 < costs.memory_total < 80
    stderr = capsys.readouterr().err
    assert "failed to load a tokenizer; token counts are those of words and signs" in stderr
    assert "8 x h800 at 40% of peak" in stderr
    assert "exceeds the device" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "model"]


def test_warning_if_estimated_memory_exceeds_the_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = plan("qwen3-8b.yaml", tmp_path, "train.processes=1", device="rtx4090", utilisation=0.5)
    assert summary.estimate is not None
    assert summary.estimate.memory_total > 100
    stderr = capsys.readouterr().err
    assert "estimated memory exceeds the device" in stderr
    assert "gradient_checkpointing" in stderr


def test_lora_fits_on_one_small_gpu(tmp_path: Path) -> None:
    costs = plan("qwen3-8b-lora.yaml", tmp_path, device="rtx4090").estimate
    assert costs is not None
    # r = 16 on seven products of 36 layers: queries and output 8192 each, keys and values 5120 each, three of 16384.
    assert costs.trained == 16 * 36 * (2 * 8192 + 2 * 5120 + 3 * 16384) == 43_646_976
    # 15.3 GiB of bfloat16 weights, and little else.
    assert 17 < costs.memory_total < 20


def test_nf4_weights_take_a_third_of_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = plan("qwen3-8b-lora.yaml", tmp_path, "train.quantize=nf4", device="rtx4090").estimate
    assert costs is not None
    # 36 layers: queries and output 4096 * 4096, keys and values 4096 * 1024, three of 4096 * 12288.
    products = 36 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288)
    assert costs.quantized == products == 6_945_767_424
    # 0.5 bytes per weight, 1 byte per 64, 4 bytes per 64 * 256; embeddings, head and norms in bfloat16, adapters in
    # float32; and one matrix of 4096 * 12288 unpacked.
    expected = products * (0.5 + 1 / 64 + 4 / 16384) + 2 * (costs.parameters - products) + 4 * costs.trained
    assert costs.memory["weights"] == pytest.approx((expected + 2 * 4096 * 12288) / 2**30)
    assert 5.8 < costs.memory["weights"] < 6.0
    assert (
        "8.19 billion parameters, 6.95 billion with 4 bits per weight, 43.6 million trained" in capsys.readouterr().err
    )


def test_disk_of_a_run_is_that_of_its_files(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [pair(number) for number in range(16)])
    section = recipe(tiny_model, batch_size=4, num_train_epochs=1, save_steps=1, save_total_limit=2)
    costs = train(section, folder=tmp_path, dry_run=True).estimate
    assert costs is not None
    text = capsys.readouterr().err
    assert "GiB on disk: checkpoints" in text
    assert "at 1 GB/s, which differs much between disks" in text
    train(section, folder=tmp_path)

    def size(*patterns: str) -> float:
        found = [path for pattern in patterns for path in (tmp_path / "checkpoint").glob(pattern)]
        assert found
        return sum(path.stat().st_size for path in found) / 2**30

    one = size("checkpoint-4/*.safetensors", "checkpoint-4/optimizer.pt")
    # Two are kept, and a third one exists until it is whole. Names and shapes take a tenth in so small a model.
    assert costs.disk["checkpoints"] == pytest.approx(3 * one, rel=0.15)
    assert costs.disk["model"] == pytest.approx(size("model.safetensors"), rel=0.1)
    assert costs.saving_seconds * 1e9 == pytest.approx(
        (4 * costs.disk["checkpoints"] / 3 + costs.disk["model"]) * 2**30
    )
    for changed, checkpoints in (({"save_total_limit": None}, 4), ({"save_strategy": "no"}, 0), ({"save_steps": 3}, 1)):
        again = recipe(tiny_model, **{"batch_size": 4, "num_train_epochs": 1, "save_steps": 1, **changed})
        other = train(again, folder=tmp_path, dry_run=True).estimate
        assert other is not None
        assert other.disk["checkpoints"] == pytest.approx(checkpoints * costs.disk["checkpoints"] / 3)


def test_unknown_device_is_an_error_with_the_nearest_name(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(4)])
    with pytest.raises(RecipeError, match="unknown device 'h8000'") as caught:
        train(recipe(tiny_model), folder=tmp_path, dry_run=True, device="h8000")
    assert "h800" in str(caught.value.cure)


def test_missing_model_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path, [pair(number) for number in range(4)])
    with pytest.raises(UserError, match="there is no such folder, and the hub cannot be asked") as caught:
        train(recipe(Path("nobody/nothing")), folder=tmp_path, dry_run=True)
    assert caught.value.where == "nobody/nothing"


def test_estimate_grows_with_the_epochs(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(16)])

    def operations(**section: Any) -> dict[str, float]:
        costs = train(recipe(tiny_model, **section), folder=tmp_path, dry_run=True).estimate
        assert costs is not None
        return costs.operations

    two, four = operations(), operations(num_train_epochs=4)
    assert four["layers"] == pytest.approx(2 * two["layers"])
    assert four["reference"] == two["reference"]
    assert "reference" not in operations(objective="sft")
    assert operations(share_prefix=False)["layers"] > two["layers"]


def test_decisions_and_the_audit_are_part_of_the_plan(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [pair(number) for number in range(4)])
    data = tmp_path / "data.jsonl"
    first, second, *_ = jsonl.read(data, Pair)
    review = ReviewFile(data)
    review.append(
        Event.model_validate({"time": "", "action": row.id, "key": row.key, "digest": text_digest(row), **made})
        for row, made in ((first, {"decision": "reject"}), (second, {"decision": "edited", "chosen": "by hand"}))
    )
    audit = Audit(sample=2, seed=0, rejected=1, low=0.01, high=0.99, data=jsonl.digest(data))
    review.append([Event(event="audit", time="", audit=audit)])
    review.close()
    summary = train(recipe(tiny_model), folder=tmp_path, dry_run=True)
    assert (summary.rows, summary.pairs) == (4, 3)
    assert summary.reviewed == {"reject": 1, "edited": 1}
    assert summary.audit is not None
    assert (summary.audit["text"], summary.audit["current"]) == ("1 of 2 rejected: 1.0 to 99.0 %", True)
    assert "decisions of reviewers: 1 rejected and left out, 1 edited" in capsys.readouterr().err
    # The audit is about this content of the file.
    write(tmp_path, [pair(number) for number in range(5)])
    assert train(recipe(tiny_model), folder=tmp_path, dry_run=True).audit == {**summary.audit, "current": False}


def test_rows_are_counted_without_a_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    write(tmp_path, [pair(0), pair(1), pair(2, review="reject"), pair(3, chosen="x " * 500)])
    summary = train(recipe(tmp_path / "model", max_length=200), folder=tmp_path, dry_run=True)
    assert (summary.rows, summary.pairs) == (4, 2)
    assert summary.dropped == {"rejected in review": 1, "longer than max_length": 1}
    assert math.isfinite(summary.tokens)
    with pytest.raises(UserError):
        train(recipe(tmp_path / "model"), folder=tmp_path)
