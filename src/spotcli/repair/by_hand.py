"""Corrections by a person in one file: written with ``--export``, read back with ``--import``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from spotcli import decisions, files, jsonl
from spotcli.console import say, warn
from spotcli.errors import UserError
from spotcli.oracles import worksheet
from spotcli.oracles.human import HumanOracle, skipped
from spotcli.providers.replies import Reply
from spotcli.records import Pair
from spotcli.repair.cases import Case, PlannedRequest
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob
from spotcli.reply_entries import ReplyEntry, UndoEntry


def export_open_answers(job: RepairJob, data: Path, path: Path) -> None:
    """Write the wrong answers whose next oracle is a person.

    Args:
        data: the pairs; those that a person reviewed are left out.

    Raises:
        UserError: ``path`` exists; it may contain a person's work.
    """
    files.check_writable(path)
    if path.exists():
        raise UserError(
            "the file exists", where=str(path), cure="read it back with --import, or export to another file"
        )
    reviewed: set[tuple[str, int]] = set()
    if data.exists():
        known = decisions.read(data)
        reviewed = {pair.key for pair in jsonl.read(data, Pair) if known.state(pair) not in (None, decisions.STALE)}
    items, others = [], 0
    for case in job.cases:
        planned = job.decide(case).request if case.open and case.sample.key not in reviewed else None
        if planned is not None and isinstance(planned.oracle, HumanOracle):
            items.append((planned.digest, job.request(case, planned)))
        elif planned is not None:
            others += 1
    if others:
        say(f"{path}: without {others} wrong answers whose next oracle is not a person")
    with files.naming(path):
        path.write_text(worksheet.write(items), encoding="utf-8", newline="\n")
    say(f"{path}: {len(items)} wrong answers; edit the file, then run with --import {path}")


def import_answers(job: RepairJob, journal: Journal, path: Path, source: Path) -> None:
    """Journal what a person wrote; it is judged later, as any reply.

    Args:
        source: the samples, for messages.

    Raises:
        UserError: the file does not exist, or is damaged; no answer is imported then.
    """
    files.check_readable(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"failed to read the file: {error}", where=str(path), cure="write it with --export") from None
    cases = {case.digest: case for case in job.cases if case.correctable}
    counts: Counter[str] = Counter()
    entries: list[ReplyEntry | UndoEntry] = []
    for answer in worksheet.read(text, str(path)):
        case = cases.get(answer.digest)
        if case is None:
            counts["unknown"] += 1
            warn(f"{path}:{answer.line}: {source} does not contain this wrong answer")
            continue
        planned = job.decide(case, ask_again=HumanOracle.name).request
        if planned is None or not isinstance(planned.oracle, HumanOracle):
            counts["decided by another oracle"] += 1
            continue
        outcome, entry = _entry(job, case, planned, answer.text)
        counts[outcome] += 1
        if entry is not None:
            entries.append(entry)
    if entries:
        journal.append([entry.as_row() for entry in entries])
    for entry in entries:
        job.history.add(entry)
    say(f"{path}: " + (", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "no answers"))


def _entry(job: RepairJob, case: Case, planned: PlannedRequest, text: str) -> tuple[str, ReplyEntry | UndoEntry | None]:
    """What an edited answer is counted as, and the entry to journal."""
    former, word = job.history.find(planned), text.strip()
    if word == worksheet.UNDO:
        return ("undone", UndoEntry.of(former)) if former else ("left for later", None)
    if word in ("", worksheet.encodable(case.sample.response).strip()):
        return "left for later", None
    reply = skipped() if word == worksheet.SKIP else Reply(text=text, cost=0.0)
    entry = job.entry(planned, job.request(case, planned), reply)
    if former and (former.text, former.finish_reason) == (entry.text, entry.finish_reason):
        return "unchanged since the last import", None
    return ("replaced" if former else "skipped" if word == worksheet.SKIP else "new"), entry
