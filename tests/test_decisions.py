"""Decisions about pairs: events, what takes them back, and what makes them stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spotcli import decisions
from spotcli.decisions import AppliedDecisions, Audit, Decisions, Event, ReviewFile, review_path, text_digest
from spotcli.errors import DataError, UserError
from spotcli.records import Pair

ROW: dict[str, Any] = {"id": "a", "trial": 1, "prompt": "1 + 1?", "rejected": "It is 3.", "chosen": "It is 2."}


def pair(**changes: Any) -> Pair:
    return Pair.model_validate({**ROW, **changes})


def decided(decision: str, *, action: str = "1", about: Pair | None = None, **fields: Any) -> Event:
    about = about or pair()
    values = {"time": "2026-01-01T00:00:00+00:00", "who": "ann", "action": action, "key": about.key}
    return Event.model_validate({**values, "decision": decision, "digest": text_digest(about), **fields})


def undo(action: str) -> Event:
    return Event(event="undo", time="", action=action)


def test_the_last_decision_counts_and_undo_brings_the_one_before_back() -> None:
    known = Decisions([decided("accept"), decided("reject", action="2", reason="false step")])
    assert (known.state(pair()), known.last_action) == ("reject", ("2", {("a", 1)}))
    known.add(undo("2"))
    assert known.state(pair()) == "accept"
    known.add(undo("1"))
    assert (known.state(pair()), known.last_action) == (None, None)
    known.add(undo("1"))  # what is taken back already
    assert known.state(pair()) is None


def test_one_undo_takes_back_all_decisions_of_an_action() -> None:
    others = [pair(id=str(number)) for number in range(5)]
    known = Decisions([decided("reject", about=other) for other in others])
    assert {known.state(other) for other in others} == {"reject"}
    known.add(undo("1"))
    assert {known.state(other) for other in others} == {None}


@pytest.mark.parametrize("field", ["prompt", "rejected", "chosen"])
def test_a_decision_about_another_text_is_stale(field: str) -> None:
    known = Decisions([decided("reject")])
    changed = pair(**{field: "other"})
    assert known.state(changed) == "stale"
    assert known.applied(changed) is changed
    assert known.state(pair(id="b")) is None


def test_both_forms_of_a_prompt_are_the_same_text() -> None:
    assert text_digest(pair()) == text_digest(pair(prompt=[{"role": "user", "content": "1 + 1?"}]))


def test_an_edit_replaces_the_correction() -> None:
    event = decided("edited", chosen="It is two.", verdict="right", change_ratio=0.25)
    edited = Decisions([event]).applied(pair())
    assert (edited.chosen, edited.review, edited.verdict, edited.change_ratio) == (
        "It is two.",
        "edited",
        "right",
        0.25,
    )
    assert edited.rejected == "It is 3."


def test_an_event_comes_before_the_field_of_the_row() -> None:
    reviewed = pair(review="reject")
    assert Decisions().state(reviewed) == "reject"
    known = Decisions([decided("accept")])
    assert (known.state(reviewed), known.applied(reviewed).review) == ("accept", "accept")


def test_events_are_appended_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    file = ReviewFile(path)
    assert not review_path(path).exists()  # nothing is written before the first decision
    file.append([decided("accept")])
    assert decisions.read(path).state(pair()) == "accept"  # at once, while the file is still open
    with pytest.raises(UserError, match="another process is writing this file"):
        ReviewFile(path).append([decided("reject", action="2")])
    file.append([decided("edited", action="3", chosen="x\u2028\ud800"), undo("3")])
    file.close()
    other = ReviewFile(path)
    other.append([decided("reject", action="4", reason="false step")])
    other.close()
    rows = [json.loads(line) for line in review_path(path).read_text().split("\n")[:-1]]
    assert [row["event"] for row in rows] == ["decision", "decision", "undo", "decision"]
    assert {"time", "who", "action", "key", "decision", "reason", "digest", "event"} == rows[-1].keys()
    assert rows[0]["key"] == ["a", 1]
    assert decisions.read(path).state(pair()) == "reject"


def test_a_torn_last_line_is_no_decision(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    file = ReviewFile(path)
    file.append([decided("accept")])
    file.close()
    with review_path(path).open("a") as torn:
        torn.write('{"event": "decision", "ti')
    assert decisions.read(path).state(pair()) == "accept"
    file = ReviewFile(path)
    file.append([decided("reject", action="2")])
    file.close()
    assert decisions.read(path).state(pair()) == "reject"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "data.review.jsonl:1: invalid JSON"),
        ('{"time": "", "decision": "perhaps"}', "invalid decision: the field 'decision'"),
        ('{"time": "", "key": ["a", -1], "decision": "accept"}', "invalid decision: the field 'key.1'"),
        ('{"time": "", "key": "a", "decision": "accept"}', "invalid decision: the field 'key'"),
        ('{"event": "edit", "time": ""}', "invalid decision: the field 'event'"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "data.jsonl"
    review_path(path).write_text(f"{line}\n" + json.dumps(decided("accept").row()) + "\n")
    with pytest.raises(DataError) as caught:
        decisions.read(path)
    assert message in str(caught.value)


def test_applied_decisions_are_counted_and_identify_the_change() -> None:
    rows = [pair(id=name) for name in "abcd"]
    events = [decided("accept", about=rows[0]), decided("reject", about=rows[1])]
    apply = AppliedDecisions(Decisions(events))
    changed = [apply(row).review for row in (*rows, pair(id="b", chosen="other"))]
    assert changed == ["accept", "reject", None, None, None]
    assert apply.counts == {"accept": 1, "reject": 1, "stale": 1}
    assert apply.digest is not None
    accepted = AppliedDecisions(Decisions(events[:1]))
    assert [accepted(row).review for row in rows] == ["accept", None, None, None]
    assert accepted.digest is None  # training is the same


def test_an_audit_is_one_line() -> None:
    audit = Audit(sample=100, seed=0, rejected=7, low=0.0286053, high=0.1389197, data="")
    assert str(audit) == "7 of 100 rejected: 2.9 to 13.9 %"
    assert str(audit.model_copy(update={"edited": 1})) == "8 of 100 rejected or edited: 2.9 to 13.9 %"
    known = Decisions([Event(event="audit", time="", audit=audit)])
    assert known.audit == audit
