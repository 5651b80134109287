"""The oracle that is a person with an editor, one answer at a time.

The editor (``$VISUAL``, ``$EDITOR``, else vi) opens the wrong answer below a head with the problem and the reference
answer, which is removed again. The saved text is the correction. Saved without a change, the answer is skipped and not
shown again; saved empty, the run stops, and the same command resumes there; ``BACK`` alone shows the previous answer.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from spotcli.console import err, one_line
from spotcli.errors import UserError
from spotcli.grading.kinds import grade_any, grader_of
from spotcli.oracles import CorrectionRequest
from spotcli.oracles.worksheet import SKIP, encodable, problem_lines
from spotcli.providers.replies import Reply, RequestFailed

STOPPED = "stopped"
"""The kind of the failure by which a person stops the run."""

BACK = "BACK"
"""Alone in the place of an answer: show the previous one again."""

_SEPARATOR = "#|---- the answer begins below this line ----"

Amend = Callable[[CorrectionRequest, Reply], Awaitable[None]]
"""Replaces an earlier reply of this run."""


class HumanOracle:
    """Asks the person at the terminal; a request raises ``UserError`` if the editor cannot be started."""

    name = "human"
    version = "1"
    prompted = False
    parallel: int | None = 1

    def __init__(self) -> None:
        self.amend: Amend | None = None
        """Set by whoever keeps the replies; None: a person cannot go back."""
        self._previous: list[tuple[CorrectionRequest, str]] = []

    async def correct(self, request: CorrectionRequest) -> Reply:
        return await self._correct(request, request.sample.response)

    async def close(self) -> None:
        """A person has no connection to close."""

    async def _correct(self, request: CorrectionRequest, text: str) -> Reply:
        while (reply := await asyncio.to_thread(self._edit_until_done, request, text)) is None:
            await self._go_back()
        self._previous.append((request, reply.text or request.sample.response))
        return reply

    async def _go_back(self) -> None:
        """Show the previous answer again; the new reply replaces the earlier one."""
        if not self._previous or self.amend is None:
            err().print("this is the first answer of this session")
            return
        request, text = self._previous.pop()
        reply = await self._correct(request, text)
        if (reply.text or request.sample.response) != text:
            await self.amend(request, reply)

    def _edit_until_done(self, request: CorrectionRequest, text: str) -> Reply | None:
        """Open the editor until the person is content; None: back to the previous answer."""
        sample = request.sample
        while True:
            text = _edit(_page(request, encodable(text)))
            if not text.strip():
                raise RequestFailed(STOPPED, "stopped by the editor", retryable=False)
            if text.strip() == BACK:
                return None
            if text.strip() in (encodable(sample.response).strip(), SKIP):
                return skipped()
            # A grader of the user's own is left to the stage: only the recipe can vouch for it.
            grader = sample.grader if ":" not in (sample.grader or "") else None
            grade = grade_any(grader_of(grader), text, sample.references)
            if grade.verdict == "right" or not sys.stdin.isatty() or not _edit_again(grade.verdict, grade.extracted):
                return Reply(text=text, cost=0.0)


def skipped() -> Reply:
    """The reply of a person who saw the answer and does not want to see it again."""
    return Reply(finish_reason="declined", reason="skipped", cost=0.0)


def _page(request: CorrectionRequest, text: str) -> str:
    head = [
        "Correct the answer below with as few changes as you can. Saved unchanged: skip it. Saved empty: stop; the",
        f"same command resumes here. {BACK} alone: show the previous answer again.",
        "",
        *problem_lines(request),
    ]
    return "\n".join([*(f"#| {one_line(line)}".rstrip() for line in head), _SEPARATOR, text])


def _edit(page: str) -> str:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="spot-") as folder:
        file = Path(folder) / "answer.md"
        file.write_text(page + "\n", encoding="utf-8")
        try:
            code = subprocess.run([*shlex.split(command), str(file)], check=False).returncode
        except OSError as error:
            raise UserError(
                f"failed to start the editor: {error}", where="$EDITOR", cure="export EDITOR=nano"
            ) from None
        if code:
            raise RequestFailed(STOPPED, f"the editor exited with code {code}", retryable=False)
        saved = file.read_text(encoding="utf-8")
    _, separator, text = saved.partition(f"\n{_SEPARATOR}")
    # Editors end a file with a line break that is not the student's.
    return (text if separator else saved).removeprefix("\n").removesuffix("\n")


def _edit_again(verdict: str, extracted: str | None) -> bool:
    err().print(f"this is graded {verdict} (final answer: {one_line(extracted or 'none')})")
    return input("edit again? [Y/n] ").strip().lower() != "n"
