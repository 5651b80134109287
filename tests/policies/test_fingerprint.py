"""Fingerprints of model folders: their format is part of files on disk, so it must not change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from spotcli.policies.fingerprint import SCORES, fingerprint

FILES = {
    "config.json": b"{}",
    "generation_config.json": b'{"top_k": 20}',
    "adapter_config.json": b'{"r": 8}',
    "model-00001.safetensors": b"weights",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"older weights",
    "tokenizer.json": b"not part of the weights",
    "README.md": b"nor this",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_format_of_references(folder: Path) -> None:
    names = ["adapter_config.json", "config.json", "model-00001.safetensors", "pytorch_model.bin"]
    text = "".join(f"{name}:{sha256(FILES[name])};" for name in names)
    assert fingerprint(str(folder)) == sha256(text.encode())


def test_the_format_of_scores(folder: Path) -> None:
    names = ["adapter_config.json", "config.json", "generation_config.json", "model-00001.safetensors"]
    names.append("model.safetensors.index.json")
    text = "".join(f"{name}:{sha256(FILES[name])}\n" for name in names)
    assert fingerprint(str(folder), SCORES) == sha256(text.encode())[:16]


@pytest.mark.parametrize("name", ["config.json", "model-00001.safetensors"])
def test_changed_files_change_both(folder: Path, name: str) -> None:
    before = fingerprint(str(folder)), fingerprint(str(folder), SCORES)
    (folder / name).write_bytes(b"changed")
    after = fingerprint(str(folder)), fingerprint(str(folder), SCORES)
    assert before[0] != after[0]
    assert before[1] != after[1]
    (folder / "tokenizer.json").write_bytes(b"changed")
    assert (fingerprint(str(folder)), fingerprint(str(folder), SCORES)) == after
