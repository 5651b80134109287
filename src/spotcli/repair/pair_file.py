"""The file of pairs (``data.jsonl``) and its journal: opened, resumed, set aside, written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from spotcli import decisions, jsonl, outputs
from spotcli.console import say, warn
from spotcli.core import oracle_prompts
from spotcli.locks import check_free
from spotcli.oracles import AnyOracle
from spotcli.oracles.model import ModelOracle
from spotcli.recipe import RectifySection
from spotcli.repair.batch_log import BatchLog, describe
from spotcli.repair.cases import Case, History, JudgedReply
from spotcli.repair.journal import Journal
from spotcli.reply_entries import ReplyEntry
from spotcli.reviews import reviewed_rows


def journal_path(path: Path) -> Path:
    """``X.replies.jsonl`` beside ``X.jsonl``."""
    return path.with_name(f"{path.stem}.replies.jsonl")


def batches_path(path: Path) -> Path:
    """``X.batches.jsonl`` beside ``X.jsonl``."""
    return path.with_name(f"{path.stem}.batches.jsonl")


def open_journal(path: Path, oracles: Iterable[AnyOracle]) -> Journal:
    """The journal of the pairs in ``path``, with its replies priced at the prices that are set now.

    Raises:
        UserError: another process is writing it.
        DataError: a line is invalid.
    """
    return Journal(journal_path(path), _price(oracles), batches_path(path))


def _price(oracles: Iterable[AnyOracle]) -> Callable[[ReplyEntry], float | None]:
    models = {oracle.name: oracle for oracle in oracles if isinstance(oracle, ModelOracle)}

    def price(reply: ReplyEntry) -> float | None:
        model = models.get(reply.oracle)
        return model.cost_of(reply.usage, reply.cost, batched=reply.batch is not None) if model else reply.cost

    return price


def report_resumed(journal: Journal, history: History) -> None:
    """Show what the journal held when it was opened."""
    if journal.torn:
        say(f"{journal.path}: set aside a line that the last run did not finish")
    if history.replies:
        say(f"{journal.path}: {len(history.replies)} replies are kept and not requested again")
    if history.continuations:
        say(f"{journal.path}: {len(history.continuations)} continuations are kept and not generated again")


def set_aside(path: Path) -> None:
    """Rename the pairs and their companions, the journal included, to ``X.old-N.*``.

    Raises:
        UserError: another process is writing the journal.
    """
    if journal_path(path).exists():
        check_free(journal_path(path))
    batches = BatchLog(batches_path(path))
    batches.close()
    if batches.open:
        names = ", ".join(batch.id or batch.key for batch in batches.open)
        warn(f"{describe(batches.open)} given up ({names}): the provider goes on with it and charges for it")
    moved = outputs.set_aside(path)
    if moved:
        say(f"the old files, replies included, are kept as {moved.stem}.*")


def open_pairs(
    path: Path, settings: RectifySection, first: AnyOracle, history: History, *, replay: bool
) -> outputs.Output:
    """The file of pairs.

    Args:
        first: the first oracle on the ladder.
        replay: accept a file that was made with another oracle or with other settings of it.

    Raises:
        SettingsChanged: the file was made with another first oracle, or with other settings of it.
    """
    if not history.replies and path.exists() and not path.stat().st_size:
        # Settings may change until the first reply: a first start may have failed for a missing key.
        outputs.meta_path(path).unlink(missing_ok=True)
    before = outputs.read_meta(path).get("settings")
    if replay and before:
        wanted = {name: value for name, value in before.items() if name != "mode"}
    else:
        wanted = {"oracle": first.name, "version": first.version}
        if first.prompted:
            reply = "solution" if settings.mode == "direct" else settings.reply
            wanted |= {"reply": reply, "reference": settings.reference, "prompt": oracle_prompts.VERSION}
    if settings.mode != "surgery":
        wanted["mode"] = settings.mode
    return outputs.Output(path, command="spot rectify", settings=wanted)


def note_origin(
    output: outputs.Output, settings: RectifySection, source: Path, ratio_unit: str, history: History
) -> None:
    """Write to the meta file how the pairs were filtered, from which samples, and what was sent to each oracle."""
    filters = {
        "gamma": settings.gamma,
        "max_deleted": settings.max_deleted,
        "target": settings.target,
        "ratio_unit": ratio_unit,
    }
    if settings.keep is not None:
        filters["keep"] = settings.keep
    output.note(filters=filters, samples={"path": settings.samples, "sha256": jsonl.digest(source)})
    if sent := {entry.oracle: entry.sent for entry in history.answers if entry.sent}:
        output.note(sent=sent)


def keep_reviewed(cases: Iterable[Case], output: outputs.Output) -> None:
    """Give each case the pair that a person reviewed, if it is about the same answer."""
    reviewed = reviewed_rows(output.rows(), decisions.read(output.path).covers)
    for case in cases:
        row = reviewed.get(case.sample.key)
        if row and row.get("rejected") == case.sample.response:
            case.reviewed = row


def pair_rows(cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
    """The rows of the accepted cases, in their order."""
    for case in cases:
        if case.reviewed is not None:
            yield case.reviewed
        elif case.decided is not None and case.accepted:
            yield _row(case, case.decided)


def _row(case: Case, decided: JudgedReply) -> dict[str, Any]:
    """All fields of the sample, and the correction; ``verdict`` and ``extracted`` are those of y+."""
    row = case.sample.model_dump(mode="json", exclude_unset=True)
    row.pop("reason", None)
    correction, entry = decided.correction, decided.entry
    return row | {
        "rejected": case.sample.response,
        "chosen": correction.chosen,
        "change_ratio": correction.change_ratio,
        "verdict": correction.verdict,
        "extracted": correction.extracted,
        "oracle": {
            "name": entry.oracle,
            "model": entry.model,
            "version": entry.version,
            "prompt": entry.prompt if entry.mode != "plain" else None,
            "reply": entry.mode,
            "attempt": entry.attempt,
            "usage": entry.usage,
            "cost": entry.cost,
            **({"cut": decided.cut} if decided.cut else {}),
        },
    }
