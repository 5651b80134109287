"""The output folder: files of earlier versions, checkpoints, the identity of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spotcli.errors import DataError, SettingsChanged, UserError
from spotcli.training.progress import Metrics
from spotcli.training.run_folder import META, RunFolder, RunIdentity, RunMeta, checkpoints, seal_checkpoint

IDENTITY = RunIdentity({"beta": 0.1, "seed": 0}, {"data": "digest", "model": "m", "model weights": "w"})

# spot-train.json as version 0.1 wrote it.
EARLIER = {
    "command": "train", "settings": IDENTITY.settings, "inputs": IDENTITY.inputs, "versions": {"spotcli": "0.1"},
    "started": "2026-01-01T00:00:00+00:00", "complete": True, "finished": "2026-01-01T01:00:00+00:00",
    "summary": {
        "checkpoint": "checkpoint", "objective": "spot-bco", "pairs": 3, "read": 4, "dropped": {"too long": 1},
        "emitted": 0, "epochs": 2.0, "batch_size": 2, "steps": 4, "tokens": 60, "shared_tokens": 40,
        "shares_prefix": True, "seconds": 1.0, "pairs_per_second": 3.0, "first_loss": 1.386,
        "final": {"loss": 1.2, "moved_kept": 0.1, "check_cut": 2}, "resumed_from": None, "estimate": None,
    },
}  # fmt: skip


def test_summary_of_an_earlier_version_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / META).write_text(json.dumps(EARLIER))
    summary = RunFolder(tmp_path).finished(IDENTITY)
    assert summary is not None
    assert summary.rows == 4
    assert summary.final == {"loss": 1.2, "logp_change_kept": 0.1, "check_truncated": 2}
    assert "read 'read' as 'rows'" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_has_no_settings_for_saving(tmp_path: Path) -> None:
    (tmp_path / META).write_text(json.dumps(EARLIER | {"complete": False}))
    (tmp_path / "checkpoint-2").mkdir()
    run = RunFolder(tmp_path)
    now = RunIdentity({**IDENTITY.settings, "save_dtype": "auto", "rounding": "stochastic"}, IDENTITY.inputs)
    assert run.finished(now) is None
    (tmp_path / META).write_text(json.dumps(EARLIER | {"settings": now.settings, "complete": False}))
    other = RunIdentity({**now.settings, "rounding": "nearest"}, IDENTITY.inputs)
    with pytest.raises(SettingsChanged, match='rounding was "stochastic", now "nearest"'):
        run.finished(other)


def test_a_run_of_an_earlier_version_has_no_surgical_settings(tmp_path: Path) -> None:
    (tmp_path / META).write_text(json.dumps(EARLIER | {"complete": False}))
    (tmp_path / "checkpoint-2").mkdir()
    run = RunFolder(tmp_path)
    off = {"focal_weight": 1.0, "focal_tokens": "first", "dpop_penalty": 50.0, "kept_weight": 1.0,
           "suffix_weight": None, "kept_kl": 0.0}  # fmt: skip
    assert run.finished(RunIdentity({**IDENTITY.settings, **off}, IDENTITY.inputs)) is None
    # It was trained without them.
    now = RunIdentity({**IDENTITY.settings, **off, "kept_kl": 0.1}, IDENTITY.inputs)
    with pytest.raises(SettingsChanged, match=r"kept_kl was 0\.0, now 0\.1"):
        run.finished(now)


def test_metrics_of_an_earlier_version_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "moved_rejected": -0.5}\n{"step": 2, "check_cut": 1}\n')
    metrics = Metrics(path)
    assert metrics.rows() == [{"step": 1, "logp_change_rejected_edited": -0.5}, {"step": 2, "check_truncated": 1}]
    metrics.close()
    assert "'moved_rejected' as 'logp_change_rejected_edited'" in capsys.readouterr().err


def test_started_run_is_not_complete_and_may_change_until_it_has_weights(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    meta = run.start(IDENTITY, "name: run\n")
    written = json.loads((tmp_path / META).read_text())
    assert list(written) == ["command", "settings", "inputs", "versions", "started", "complete"]
    assert (written["complete"], (tmp_path / "recipe.yaml").read_text()) == (False, "name: run\n")
    other = RunIdentity({"beta": 0.2, "seed": 0}, IDENTITY.inputs)
    assert run.finished(other) is None
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(SettingsChanged, match=r"beta was 0\.1, now 0\.2"):
        run.finished(other)
    assert run.start(IDENTITY, "name: run\n").started == meta.started


def test_meta_survives_a_round_trip(tmp_path: Path) -> None:
    (tmp_path / META).write_text(json.dumps(EARLIER))
    meta = RunMeta.read(tmp_path / META)
    assert meta is not None
    (tmp_path / META).write_text(json.dumps(meta.as_dict()))
    assert RunMeta.read(tmp_path / META) == meta


def test_last_checkpoint_is_the_newest_whole_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (2, 10, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_bytes(b"0123")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4", "checkpoint-10"]
    assert run.last_step() == 0
    for step in (2, 4):
        seal_checkpoint(tmp_path / f"checkpoint-{step}", {"step": step})
    assert run.last_step() == 4
    (tmp_path / "checkpoint-4" / "weights").write_bytes(b"0")
    assert run.last_checkpoint() == tmp_path / "checkpoint-2"
    run.remove_checkpoints(after=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"settings": null}', b'{"settings": []}', b'{"summary": []}', b'{"summary": {"x": 1}}']
)
def test_a_damaged_file_of_settings_is_named_and_fresh_renames_the_folder(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path / "out")
    run.path.mkdir()
    (run.path / META).write_bytes(content)
    with pytest.raises(DataError) as caught:
        run.finished(IDENTITY)
    assert str(caught.value.where) == str(run.path / META)
    run.set_aside()
    assert (tmp_path / "out.old-1" / META).read_bytes() == content


def test_fresh_renames_only_a_folder_of_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out")
    run.path.mkdir()
    (run.path / "thesis.tex").touch()
    with pytest.raises(UserError, match="--fresh does not rename it"):
        run.set_aside()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_the_folder_behind_a_link_is_renamed_and_the_link_is_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "out"
    real.mkdir()
    (real / META).write_text("{}")
    link.symlink_to(real)
    RunFolder(link).set_aside()
    assert link.is_symlink()
    assert list(link.iterdir()) == []
    assert (tmp_path / "real.old-1" / META).exists()
