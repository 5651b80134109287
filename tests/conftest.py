"""Fixtures and helpers for all tests: a tiny model, the folder of public benchmark files, JSONL files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings

from tests.processes import alive_after
from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).parent.parent

# The duration of an example is meaningless on a machine that does other work.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# A shell starts background jobs with SIGINT ignored, and every command that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public benchmark files, which are not part of this repository."""
    folder = Path(os.environ.get("SPOT_SHARED") or ROOT.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip("the public benchmark files are missing (set SPOT_SHARED to their folder)")
    return folder


@pytest.fixture
def mark() -> Iterator[str]:
    """A name for the processes of one test (``tests.processes``); all of them must have ended after the test."""
    name = uuid4().hex
    yield name
    remaining = alive_after(name, 2)
    for pid in remaining:
        os.kill(pid, signal.SIGKILL)
    assert remaining == []


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers, a byte-level tokenizer and a chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a JSONL file and return its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def set_clock(monkeypatch: pytest.MonkeyPatch, date: str) -> None:
    """Set the current date for chat templates, which get it from transformers."""
    from transformers.utils import chat_template_utils

    class Clock(datetime):
        # typeshed declares that `now` returns an instance of the subclass; a datetime is enough here.
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(date)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
