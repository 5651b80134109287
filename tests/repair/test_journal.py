"""The journal: complete replies, on the disk first, and money that may have been charged."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import DataError
from spotcli.repair.journal import Journal
from spotcli.reply_entries import Entry, MoneyEntry, ReplyEntry, UndoEntry, read_entry


def reply(key: str, *, cost: float | None = 0.5, reserved: float = 0.0) -> ReplyEntry:
    return ReplyEntry(
        key=key, id="p", trial=0, sample="digest", attempt=0, oracle="gpt-4o", version="", prompt="2", mode="rewrite",
        fence="a1b2c3", max_tokens=100, text="x", finish_reason="stop", cost=cost, reserved=reserved,
        at="2026-01-02T03:04:05+00:00", seconds=0.125,
    )  # fmt: skip


def write(path: Path, *entries: Entry) -> None:
    async def work() -> None:
        with Journal(path) as journal:
            await asyncio.gather(*(journal.record(entry) for entry in entries))

    asyncio.run(work())


def test_recorded_entries_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, reply("a"), reply("b"))
    with Journal(path) as journal:
        assert journal.entries == [reply("a"), reply("b")]
        assert journal.spent == 1.0


def test_waiting_entries_share_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    append = Journal.append

    def counted(self: Journal, rows: list[dict[str, Any]]) -> None:
        batches.append(len(rows))
        append(self, rows)

    monkeypatch.setattr(Journal, "append", counted)
    write(tmp_path / "x.replies.jsonl", *(reply(str(number)) for number in range(50)))
    assert sum(batches) == 50
    assert len(batches) <= 3


@pytest.mark.parametrize(
    ("after", "unsettled"),
    [
        ([], 0.2),
        ([reply("a", reserved=0.2)], 0.0),
        ([MoneyEntry("free", "a", 0.2)], 0.0),
        ([reply("other", reserved=0.2)], 0.2),
        # The cost of the reply is unknown, so it may be all that was reserved.
        ([reply("a", reserved=0.2, cost=None)], 0.2),
        # Sent by a process that was killed, and again by the next one: one of the two reservations stays open.
        ([MoneyEntry("sent", "a", 0.2), reply("a", reserved=0.2)], 0.2),
    ],
)
def test_a_reservation_counts_until_its_end_is_known(after: list[Entry], unsettled: float, tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, MoneyEntry("sent", "a", 0.2), *after)
    with Journal(path) as journal:
        assert journal.unsettled == pytest.approx(unsettled)


def test_replies_are_priced_again(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, MoneyEntry("sent", "a", 0.2), reply("a", reserved=0.2, cost=None), reply("b"))
    before = path.read_bytes()
    with Journal(path, lambda entry: 0.125) as journal:
        assert (journal.spent, journal.unsettled) == (0.25, 0.0)
        assert journal.entries[1:] == [reply("a", reserved=0.2, cost=0.125), reply("b", cost=0.125)]
    assert path.read_bytes() == before


def test_nothing_is_written_after_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Journal, rows: list[dict[str, Any]]) -> None:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        with Journal(tmp_path / "x.replies.jsonl") as journal:
            monkeypatch.setattr(Journal, "append", full)
            with pytest.raises(OSError, match="No space left"):
                await journal.record(reply("a"))
            monkeypatch.undo()
            with pytest.raises(OSError, match="No space left"):
                await journal.record(reply("b"))

    asyncio.run(work())


def test_a_cancelled_request_keeps_its_reply(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"

    async def work() -> None:
        with Journal(path) as journal:
            task = asyncio.create_task(journal.record(reply("a")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await journal.drain()

    asyncio.run(work())
    with Journal(path) as journal:
        assert journal.entries == [reply("a")]


OLD_ROW = {
    "kind": "reply", "key": "a", "id": "p", "trial": 0, "sample": "digest", "attempt": 0, "oracle": "gpt-4o",
    "version": "", "prompt": "2", "mode": "rewrite", "fence": "a1b2c3", "max_tokens": 100, "text": "x",
    "finish_reason": "stop", "reason": None, "usage": {}, "cost": 0.5, "model": None,
    "at": "2026-01-02T03:04:05+00:00", "seconds": 0.125,
}  # fmt: skip
"""A row as spotcli 0.1 wrote it."""


def test_the_file_format_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    undo = UndoEntry.of(reply("a"))
    write(path, MoneyEntry("sent", "b", 0.2), reply("a"), reply("b", reserved=0.2), undo)
    lines = path.read_text().splitlines()
    assert lines[0] == '{"kind": "sent", "key": "b", "reserved": 0.2}'
    assert lines[1] == json.dumps(OLD_ROW)
    assert list(json.loads(lines[2]))[-4:] == ["model", "reserved", "at", "seconds"]
    assert lines[3] == (
        '{"kind": "undo", "key": "a", "id": "p", "trial": 0, "sample": "digest", "attempt": 0, "oracle": "gpt-4o"}'
    )
    with Journal(path) as journal:
        assert [type(entry) for entry in journal.entries] == [MoneyEntry, ReplyEntry, ReplyEntry, UndoEntry]


def test_rows_of_other_versions_are_read() -> None:
    assert read_entry(OLD_ROW, "x:1") == reply("a")
    older = {name: value for name, value in OLD_ROW.items() if name not in ("max_tokens", "reason", "seconds")}
    entry = read_entry(older | {"unknown": 1}, "x:1")
    assert isinstance(entry, ReplyEntry)
    assert (entry.max_tokens, entry.reason) == (0, None)
    assert read_entry({"kind": "of a later version"}, "x:1") is None


def test_a_row_without_a_required_field_is_named() -> None:
    row = {name: value for name, value in OLD_ROW.items() if name != "sample"}
    with pytest.raises(DataError, match="x:7: the field 'sample' is missing"):
        read_entry(row, "x:7")


@pytest.mark.parametrize(
    "change",
    [{"trial": "0"}, {"usage": None}, {"usage": []}, {"cost": "much"}, {"mode": "x"}, {"text": None}, {"key": ["k"]}],
    ids=str,
)
def test_a_damaged_entry_is_named_with_its_line(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, reply("a"), reply("b"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    before = path.read_bytes()
    with pytest.raises(DataError, match=rf"{path}:2: the field '{next(iter(change))}.*' is invalid"):
        Journal(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("tail", [b"\0" * 40, '{"kind": "reply", "text": "é'.encode()[:-1], b'["reply"]', b"7"])
def test_a_damaged_end_is_set_aside(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, reply("a"))
    path.write_bytes(path.read_bytes() + tail)
    with Journal(path) as journal:
        assert journal.torn
        assert len(journal.entries) == 1
    assert path.with_suffix(".torn").read_bytes() == tail + b"\n"


def test_a_line_that_occurs_twice_is_one_reply(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, dataclasses.replace(reply("a"), at="2026-01-01T00:00:00", seconds=1.5))
    path.write_bytes(path.read_bytes() * 2)
    with Journal(path) as journal:
        assert len(journal.entries) == 1
        assert journal.spent == pytest.approx(0.5)
