"""The log of batches: what is open, what may still be charged, and lines that are damaged."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from spotcli.errors import DataError, UserError
from spotcli.repair.batch_log import Batch, BatchLog, BatchRequest, describe
from spotcli.reply_entries import ReplyEntry


def entry(key: str) -> ReplyEntry:
    return ReplyEntry(
        key=key, id="p", trial=0, sample=f"digest {key}", attempt=0, oracle="gpt-4o", version="t=1", prompt="2",
        mode="rewrite", fence="a1b2c3", text="", finish_reason="", max_tokens=100,
    )  # fmt: skip


def batch(key: str, *requests: str) -> Batch:
    return Batch(
        key=key, provider="openai", oracle="gpt-4o", version="t=1", prompt="2", account="public", body="00",
        requests=[BatchRequest(entry(name), 50, 0.25) for name in requests], at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.batches.jsonl"
    log = BatchLog(path)
    assert not path.exists()
    first, second, third = batch("a", "1", "2"), batch("b", "3"), batch("c", "4")
    for one in (first, second, third):
        log.begin(one)
    log.uploaded(first, "file-1")
    log.submitted(first, "batch_1")
    log.end(second, "abandoned")
    log.end(third, "vanished", unsettled=0.25)
    log.replied(replace(entry("1"), batch="a", cost=0.01))
    log.replied(replace(entry("2"), batch="a", cost=None))  # its price is unknown, so it stays reserved
    assert log.unsettled == 0.5
    log.close()
    with path.open("ab") as file:
        file.write(b'{"kind": "done", "key": "a"')  # torn by a crash
    again = BatchLog(path)
    assert again.open == [replace(first, replied=set())]
    assert (again.open[0].file, again.open[0].id, again.ids) == ("file-1", "batch_1", {"batch_1"})
    assert again.open[0].custom_ids == ["a-0", "a-1"]
    assert again.unsettled == 0.75
    assert again.requested == {"1", "2"}
    assert describe(again.open) == "batch batch_1 of 2 requests at openai is"
    with pytest.raises(UserError, match="paid for twice"):
        again.check_collected()
    again.end(again.open[0], "done")
    again.check_collected()
    again.close()
    with closing(BatchLog(path)) as ended:
        assert ended.open == []


def test_a_damaged_intent_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.batches.jsonl"
    log = BatchLog(path)
    log.begin(batch("a", "1"))
    log.close()
    path.write_text("{}\n" + path.read_text().replace('"limit"', '"limits"'))
    with pytest.raises(DataError, match=r"x\.batches\.jsonl:2: this line describes no batch"):
        BatchLog(path)
    path.write_text(path.read_text().replace('"limits"', '"limit"'))
    with closing(BatchLog(path)) as log:
        assert len(log.open) == 1
