"""Short runs with the surgical objectives: their first losses, layouts that change nothing, the cache, and resuming."""

from __future__ import annotations

import json
import math
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from spotcli.policies import models
from spotcli.stages.train import train
from tests.stages.test_train import SGD, apart, kept, metrics, pair, recipe, write
from tests.training.test_resume import undo

ROWS = [*(pair(number) for number in range(6)), kept(1), kept(2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Beside replacements and right answers: y+ only inserts, and y- is the beginning of y+.
    inserted = pair(20, chosen="2 + 2 = 4, so 4", rejected="2 + 2 = 4")
    write(tmp_path, [*ROWS, inserted])
    return tmp_path


def run(model: Path, folder: Path, name: str, **section: Any) -> list[dict[str, Any]]:
    """Train to an output folder of that name; the rows of its metrics."""
    train(recipe(model, output=name, num_train_epochs=1, **{"batch_size": 3, **SGD, **section}), folder=folder)
    return metrics(folder / name)


def test_spot_focal(tiny_model: Path, folder: Path) -> None:
    settings = {"objective": "spot-focal", "focal_weight": 0.5, "shift": 0.2}
    first, *others = run(tiny_model, folder, "first", **settings)
    separate = {"share_prefix": False, "per_device_train_batch_size": 1}
    run(tiny_model, folder, "separate", **settings, **separate)
    assert apart(folder / "first", folder / "separate") < 2e-6
    run(tiny_model, folder, "edited", **settings, focal_tokens="edited")
    assert apart(folder / "first", folder / "edited") > 1e-5
    # A pair: -log s(-0.2) - 0.5 log s(0.2) = 0.798139 + 0.299069; a row without y-: 0.798139.
    unpaired = first.get("unpaired", 0)
    assert first["loss"] == pytest.approx(0.798139 + 0.299069 * (3 - unpaired) / 3, abs=1e-5)
    assert others[-1]["rewards_error"] < 0
    # The runs share the cached reference.
    assert (folder / "reference.jsonl").read_text().count("\n") == 2 * 9  # of both layouts


@pytest.mark.parametrize(("objective", "first"), [("nca", 2 * math.log(2)), ("dpop", math.log(2))])
def test_objectives_to_compare_with(tiny_model: Path, folder: Path, objective: str, first: float) -> None:
    write(folder, ROWS[:6])
    rows = run(tiny_model, folder, "out", objective=objective)
    assert rows[0]["loss"] == pytest.approx(first, abs=1e-5)
    assert apart(folder / "out", tiny_model) > 1e-5


def test_weights_by_span(tiny_model: Path, folder: Path) -> None:
    """Of one pair, the first loss is the mean over the tokens that have a weight."""
    import torch

    from spotcli.core.forward import logps
    from spotcli.core.forward.packing import pack
    from spotcli.policies.empty_model import TokenLimits
    from spotcli.policies.pair_encoder import pair_encoder, pair_prompter
    from spotcli.records import Pair

    write(folder, [pair(0, chosen="3 + 2 = 5, so 5", rejected="3 + 2 = 6, so 6")])
    settings = recipe(tiny_model)
    encoder = pair_encoder(pair_prompter(settings), settings.train, TokenLimits())
    (encoded,) = encoder.encode([Pair.model_validate(json.loads((folder / "data.jsonl").read_text()))]).pairs
    model: Any = models.load_model(str(tiny_model), "float32")
    logps.install(model)
    batch = pack([encoded], share=False, rejected=False)
    with torch.no_grad():
        nll = (-model(**batch.model_inputs())).tolist()
    # The tokens are letters: "3 + 2 = 5, so 5<end>" with the edits at 8 and 14.
    assert len(nll) == 16
    edited = [nll[8], nll[14]]
    before, after = nll[:8], [*nll[9:14], nll[15]]
    expected = {
        (0.0, None): sum(edited) / 2,
        (0.5, 0.25): (sum(edited) + 0.5 * sum(before) + 0.25 * sum(after)) / (2 + 0.5 * 8 + 0.25 * 6),
    }
    for number, ((kept_weight, suffix_weight), loss) in enumerate(expected.items()):
        weights = {"kept_weight": kept_weight, "suffix_weight": suffix_weight}
        rows = run(tiny_model, folder, f"out{number}", objective="sft", **weights)
        assert rows[0]["loss"] == pytest.approx(loss, abs=1e-5)
        assert rows[0]["tokens"] == 16


def test_tether_on_kept_tokens(tiny_model: Path, folder: Path) -> None:
    settings = {"objective": "spot-bce", "kept_kl": 2.0, "learning_rate": 0.05}
    tethered = run(tiny_model, folder, "tethered", **settings)
    cache = folder / "reference.jsonl"
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    assert len(rows) == 9
    # float32 of each kept token: all letters of the right answer "1 + 1 = 2" with its end, and those before an edit.
    assert 4 * 10 in [len(b64decode(row["kept_tokens"])) for row in rows]
    # Rows with damaged tokens are computed again, the others are not.
    damaged = [rows[0] | {"kept_tokens": "!"}, rows[1] | {"kept_tokens": rows[1]["kept_tokens"][:4]}, *rows[2:]]
    write(folder, damaged, "reference.jsonl")
    run(tiny_model, folder, "small", **settings, per_device_train_batch_size=1)
    again = [json.loads(line) for line in cache.read_text().splitlines()]
    assert len(again) == 9 + 2
    assert {row["key"]: row["kept_tokens"] for row in again} == {row["key"]: row["kept_tokens"] for row in rows}
    assert apart(folder / "tethered", folder / "small") < 2e-6
    free = run(tiny_model, folder, "free", **settings | {"kept_kl": 0.0})
    assert tethered[0]["kl_kept"] == pytest.approx(0.0, abs=1e-6)
    assert tethered[-1]["kl_kept"] > 0
    assert "kl_kept" not in free[0]
    assert apart(folder / "tethered", folder / "free") > 1e-5
    # Without a tether, no token is stored. With one, sft has a reference too, the same.
    text = cache.read_text()
    assert ["kept_tokens" in line for line in text.splitlines()[11:]] == [False] * 9
    assert run(tiny_model, folder, "sft", **settings | {"objective": "sft"})[-1]["kl_kept"] > 0
    assert cache.read_text() == text


def test_a_resumed_run_ends_with_the_same_weights(tiny_model: Path, folder: Path) -> None:
    settings = {"objective": "spot-focal", "kept_kl": 1.0, "shift_decay": 0.5, "batch_size": 2}
    settings |= {"save_steps": 1, "save_total_limit": 3}
    whole = run(tiny_model, folder, "run", **settings)
    # d follows the two rewards that spot-focal compares.
    d = 0.0
    for row in whole:
        assert row["shift"] == pytest.approx(d, abs=1e-6)
        if "rewards_chosen" in row:
            d = 0.5 * d + 0.5 * (row["rewards_chosen"] + row["rewards_error"]) / 2
    assert d != 0
    output = folder / "run"
    shutil.copytree(output, folder / "whole")
    undo(output)
    for step in (4, 5):
        shutil.rmtree(output / f"checkpoint-{step}")
    again = run(tiny_model, folder, "run", **settings)
    assert apart(folder / "whole", output) == 0.0
    assert [row["step"] for row in again] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in again] == [row["loss"] for row in whole]
