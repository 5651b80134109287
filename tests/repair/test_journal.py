"""The journal: whole, on the disk first, and honest about money whose fate is unknown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from spotcli.repair.journal import Journal


def reply(key: str, **more: Any) -> dict[str, Any]:
    return {"kind": "reply", "key": key, "text": "x", "cost": 0.5, **more}


def write(path: Path, *entries: dict[str, Any]) -> None:
    async def work() -> None:
        with Journal(path) as journal:
            await asyncio.gather(*(journal.record(entry) for entry in entries))

    asyncio.run(work())


def test_what_was_recorded_is_there_next_time(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, reply("a"), reply("b"))
    with Journal(path) as journal:
        assert [entry["key"] for entry in journal.entries] == ["a", "b"]
        assert journal.spent == 1.0


def test_many_that_wait_share_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    append = Journal.append
    monkeypatch.setattr(Journal, "append", lambda self, rows: (batches.append(len(rows)), append(self, rows)))
    write(tmp_path / "x.replies.jsonl", *(reply(str(number)) for number in range(50)))
    assert sum(batches) == 50
    assert len(batches) <= 3


@pytest.mark.parametrize(
    ("after", "unsettled"),
    [
        ([], 0.2),
        ([reply("a", reserved=0.2)], 0.0),
        ([{"kind": "free", "key": "a", "reserved": 0.2}], 0.0),
        ([reply("other", reserved=0.2)], 0.2),
        # What the reply cost is unknown, so it may be as much as was reserved.
        ([reply("a", reserved=0.2) | {"cost": None}], 0.2),
        # Sent by a process that was killed, and again by the next: one of the two reservations stays open.
        ([{"kind": "sent", "key": "a", "reserved": 0.2}, reply("a", reserved=0.2)], 0.2),
    ],
)
def test_a_reservation_counts_until_its_end_is_known(
    after: list[dict[str, Any]], unsettled: float, tmp_path: Path
) -> None:
    path = tmp_path / "x.replies.jsonl"
    entries = [{"kind": "sent", "key": "a", "reserved": 0.2}, *after]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with Journal(path) as journal:
        assert journal.unsettled == pytest.approx(unsettled)


def test_replies_can_be_priced_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.replies.jsonl"
    write(path, {"kind": "sent", "key": "a", "reserved": 0.2}, reply("a", reserved=0.2) | {"cost": None}, reply("b"))
    before = path.read_bytes()
    with Journal(path, lambda entry: 0.125) as journal:
        assert (journal.spent, journal.unsettled) == (0.25, 0.0)
        assert [entry.get("cost") for entry in journal.entries] == [None, 0.125, 0.125]
    assert path.read_bytes() == before


def test_nothing_is_written_behind_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_cancelled_request_leaves_its_reply_behind(tmp_path: Path) -> None:
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
        assert [entry["key"] for entry in journal.entries] == ["a"]
