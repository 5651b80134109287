"""What a row of a file is: a pair, an answer with or without a verdict, an oracle's reply; of any file, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.console import one_line
from spotcli.errors import DataError
from spotcli.inspection.pair_facts import first_edit_share, oracle_name, pair_change_ratio
from spotcli.preference_rows import with_pair_fields
from spotcli.records import Pair, Problem, Sample, Score, UngradedSample, kind_of
from spotcli.reply_entries import ContinuationEntry, MoneyEntry, ReplyEntry, UndoEntry, read_entry
from spotcli.reply_entries import RequestEntry as Reply

Record = Pair | Score | UngradedSample | Reply

PAIRS, SCORES, SAMPLES, REPLIES = "pairs", "scores", "samples", "replies"
KINDS = (PAIRS, SCORES, SAMPLES, REPLIES)
"""The kinds of rows that are shown. Answers without a verdict are samples too."""

REPLY_KINDS = ("reply", "sent", "free", "undo")
"""The entries of an oracle's journal."""

Facts = tuple[str, str, str, str]
"""Change ratio, first edit, verdict and oracle of a row, for display; rows of other kinds have other facts there."""


COLUMNS = {
    PAIRS: (("ratio", 5), ("first", 5), ("y+", 5), ("oracle", 6), ("decided", 7)),
    SCORES: (("change", 7), ("end", 5), ("verdict", 5), ("task", 6), ("", 5)),
    SAMPLES: (("length", 6), ("end", 5), ("verdict", 5), ("source", 6), ("", 6)),
    REPLIES: (("cost", 7), ("end", 5), ("entry", 5), ("oracle", 6), ("", 5)),
}
"""Names and widths of the columns of the list, by the kind of the file."""


def kind_of_record(record: Record) -> str:
    """The kind of a row that was read."""
    if isinstance(record, Pair):
        return PAIRS
    if isinstance(record, Score):
        return SCORES
    return SAMPLES if isinstance(record, UngradedSample) else REPLIES


def read_row(row: dict[str, Any], where: str, renamed: dict[str, str]) -> Record:
    """Return a row as the record that it is.

    Args:
        row: the row as it was read.
        where: file and line, for the error message.
        renamed: collects the fields that were read under another name.

    Raises:
        DataError: the row is of no kind that is shown, or a field is missing or invalid.
    """
    if row.get("kind") in (*REPLY_KINDS, "continuation") and isinstance(row.get("key"), str):
        reply = read_entry(row, where)
        assert reply is not None  # the kind is one of those
        return reply.as_reply("") if isinstance(reply, ContinuationEntry) else reply
    kind = kind_of(row)
    if kind == Score.kind:
        return jsonl.as_record(row, Score, where=where, renamed=renamed)
    if kind == Sample.kind or (kind == Pair.kind and _is_answer(row)):
        return jsonl.as_record(row, Sample if "verdict" in row else UngradedSample, where=where, renamed=renamed)
    if kind == UngradedSample.kind:
        return jsonl.as_record(row, UngradedSample, where=where, renamed=renamed)
    if kind == Pair.kind or {"completion", "messages"} & row.keys():
        return _read_pair(row, where, renamed)
    got = "a problem without an answer" if kind == Problem.kind else "a row with other fields"
    raise DataError(
        f"expected a pair, a sample, a reply or a score, got {got}",
        where=where,
        cure="run `spot sample` on problems; docs/inspect.md lists the rows that are shown",
    )


def _is_answer(row: Mapping[str, Any]) -> bool:
    """Whether a row with ``chosen`` is an answer to a problem of a set of preferences, not a corrected answer."""
    if "oracle" in row and row.get("rejected") is None:
        return False  # a right answer that `spot rectify` kept, perhaps edited by a reviewer
    return "response" in row and row["response"] not in (row.get("rejected"), row.get("chosen"))


def _read_pair(row: dict[str, Any], where: str, renamed: dict[str, str]) -> Pair:
    """A pair of spot's own format, or of one that ``train`` reads too."""
    try:
        return jsonl.as_record({**row}, Pair, where=where, renamed=renamed)
    except DataError:
        try:
            return jsonl.as_record(with_pair_fields({**row}, renamed), Pair, where=where, renamed=renamed)
        except DataError as error:
            error.where = error.where or where
            raise


def row_facts(record: Record, *, change: str | None = None) -> Facts:
    """The facts of a row in the columns of the list.

    Args:
        record: the row.
        change: of an answer whose problem is compared with a base model's answer.
    """
    if isinstance(record, Pair):
        oracle, verdict = one_line(oracle_name(record) or ""), record.verdict or ""
        if record.rejected is None:
            return ("", "", verdict, oracle)
        return (f"{pair_change_ratio(record):.3f}", f"{first_edit_share(record):.0%}", verdict, oracle)
    if isinstance(record, Score):
        return (change or "", _truncated(record), record.verdict, one_line(record.task))
    if isinstance(record, UngradedSample):
        verdict = record.verdict if isinstance(record, Sample) else ""
        return (str(len(record.response)), _truncated(record), verdict, one_line(record.source or ""))
    if isinstance(record, ReplyEntry):
        cost = "" if record.cost is None else f"${record.cost:.3f}"
        return (cost, "trunc" if record.finish_reason == "length" else "", reply_state(record), one_line(record.oracle))
    return ("", "", record.kind, "") if isinstance(record, MoneyEntry) else ("", "", "undo", one_line(record.oracle))


def _truncated(answer: Score | UngradedSample) -> str:
    return "trunc" if answer.finish_reason == "length" else ""


def reply_state(reply: ReplyEntry) -> str:
    """Whether an oracle answered or declined."""
    return "reply" if reply.reason is None else "none"


def entry_name(entry: Reply) -> str:
    """Which entry of a journal it is: one of ``REPLY_KINDS``."""
    return entry.kind if isinstance(entry, MoneyEntry) else "undo" if isinstance(entry, UndoEntry) else "reply"


def texts(record: Record) -> Iterator[str]:
    """All texts of a row that a search looks at."""
    if isinstance(record, MoneyEntry):
        yield record.key
        return
    yield record.id
    if isinstance(record, UndoEntry):
        yield record.oracle
        return
    if isinstance(record, ReplyEntry):
        yield from (record.text, record.reasoning or "", record.reason or "", record.oracle, record.model or "")
        return
    yield from (record.answer or "", record.source or "")
    yield from (message["content"] or "" for message in record.messages)
    yield from [record.rejected or "", record.chosen] if isinstance(record, Pair) else [record.response]


def entry_key(record: Record) -> tuple[Any, ...] | None:
    """What identifies a row in its file; None if several rows may have the same."""
    if isinstance(record, ReplyEntry):
        return (record.key, record.at, record.seconds) if record.at else None
    return None if isinstance(record, MoneyEntry | UndoEntry) else record.key


def unreadable(path: Path, row: dict[str, Any] | None, error: DataError) -> Exception:
    """The error for a file none of whose rows can be read: of its kind if the first row has one, else of that row.

    Args:
        path: the file.
        row: its first row; None if it is not a JSON object.
        error: of the first row.
    """
    try:
        if row is not None and not {"completion", "messages"} & row.keys():
            jsonl.refuse_other_kind(row, Pair, path)
    except Exception as other:
        return other
    return error
