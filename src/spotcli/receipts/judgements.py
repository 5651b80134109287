"""What the replies about one answer are worth: judged again by the code of ``spot rectify``, since no file keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from spotcli.console import printing
from spotcli.core import edits
from spotcli.errors import SpotError
from spotcli.receipts.run_files import RunFiles, meta_of
from spotcli.records import Sample
from spotcli.repair.cases import digest_of
from spotcli.repair.judge import Correction, Criteria, Measure, judge, measure_by
from spotcli.reply_entries import ContinuationEntry, ReplyEntry


@dataclass(frozen=True)
class JudgedReply:
    """A reply and what it was judged to be."""

    entry: ReplyEntry
    judgement: str
    """``accepted``, or why it is not a pair; empty if the answer has changed since or is missing."""
    correction: Correction | None = None


class Judgements:
    """Judges the replies of a run; the tokenizer that measures changes is loaded for the first reply."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._criteria: Criteria | None = None

    def of(self, sample: Sample | None, entries: Sequence[ReplyEntry | ContinuationEntry]) -> list[JudgedReply]:
        """Judge the replies about an answer; without the answer, they are only listed."""
        judged = []
        for entry in entries:
            reply = entry.as_reply(sample.response if sample else "") if isinstance(entry, ContinuationEntry) else entry
            if sample is None or not _is_about(sample, reply):
                judged.append(JudgedReply(reply, ""))
                continue
            with printing(False):
                correction = judge(sample, reply, self._of_run())
            judged.append(JudgedReply(reply, correction.reason, correction))
        return judged

    def _of_run(self) -> Criteria:
        if self._criteria is None:
            settings, filters = self._files.recipe.rectify, meta_of(self._files.pairs).get("filters", {})
            measure: Measure = edits.measure_text
            if filters.get("ratio_unit") != "words and signs":
                with suppress(SpotError):
                    measure = measure_by(settings, self._files.samples)[0]
            self._criteria = Criteria(
                measure,
                gamma=float(filters.get("gamma", settings.gamma)),
                max_deleted=float(filters.get("max_deleted", settings.max_deleted)),
                answer_only=settings.answer_only,
                grader=self._files.recipe.grader,
            )
        return self._criteria


def _is_about(sample: Sample, reply: ReplyEntry) -> bool:
    """Whether a reply corrects the answer as it is now."""
    return reply.sample == digest_of(sample.id, sample.trial, sample.prompt, sample.response, sample.answer)
