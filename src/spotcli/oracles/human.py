"""A person with an editor, one answer after the other.

The editor (``$VISUAL``, ``$EDITOR``, else vi) opens on the wrong answer, with the problem and the reference answer in a
head that is cut off again. What is saved is the correction; saved unchanged, the answer is skipped and not shown again;
saved empty, the work stops, and the same command goes on there; ``BACK`` alone opens the answer before once more.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from spotcli.console import err, safe
from spotcli.errors import UserError
from spotcli.grading.kinds import grader_of
from spotcli.oracles import Amend, Request
from spotcli.oracles.worksheet import SKIP, problem
from spotcli.providers.replies import PassingFailure, Reply

STOPPED = "stopped"
"""The kind of the failure by which a person ends the work."""

BACK = "BACK"
"""Alone in the place of an answer: show the one before again."""

_CUT = "#| ---- the answer begins below this line ----"


class HumanOracle:
    """Asks whoever sits at the terminal.

    Raises:
        UserError: the editor cannot be started.
    """

    name = "human"
    version = "1"
    prompted = False
    parallel: int | None = 1

    def __init__(self) -> None:
        self.amend: Amend | None = None
        self._trail: list[tuple[Request, str]] = []

    async def correct(self, request: Request) -> Reply:
        return await self._correct(request, request.sample.response)

    async def close(self) -> None:
        """Nothing is open."""

    async def _correct(self, request: Request, text: str) -> Reply:
        while (reply := await asyncio.to_thread(self._once, request, text)) is None:
            await self._go_back()
        self._trail.append((request, reply.text or request.sample.response))
        return reply

    async def _go_back(self) -> None:
        """Show the answer before again; what is said now takes the place of what was said then."""
        if not self._trail or self.amend is None:
            err().print("this is the first answer of this sitting")
            return
        request, text = self._trail.pop()
        reply = await self._correct(request, text)
        if (reply.text or request.sample.response) != text:
            await self.amend(request, reply)

    def _once(self, request: Request, text: str) -> Reply | None:
        """The editor until the person is content; None: back to the answer before."""
        sample = request.sample
        while True:
            text = _edit(_page(request, text))
            if not text.strip():
                raise PassingFailure(STOPPED, "stopped by the editor", retry=False)
            if text.strip() == BACK:
                return None
            if text.strip() in (sample.response.strip(), SKIP):
                return skipped()
            # A checker of the user's own is left to the stage: only the recipe can vouch for it.
            named = sample.grader if ":" not in (sample.grader or "") else None
            graded = grader_of(named)(text, sample.answer or "")
            if graded.verdict == "right" or not sys.stdin.isatty() or not _again(graded.verdict, graded.extracted):
                return Reply(text=text, cost=0.0)


def skipped() -> Reply:
    """A person has looked at the answer and does not want to see it again."""
    return Reply(finish_reason="declined", reason="skipped", cost=0.0)


def _page(request: Request, text: str) -> str:
    head = [
        "Mend the answer below with as few changes as you can. Unchanged: skip it. Empty: stop; the same command goes",
        f"on here. {BACK} alone: the answer before this one again.",
        "",
        *problem(request),
    ]
    return "\n".join([*(f"#| {safe(line)}".rstrip() for line in head), _CUT, text])


def _edit(page: str) -> str:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="spot-") as folder:
        file = Path(folder) / "answer.md"
        file.write_text(page + "\n", encoding="utf-8")
        try:
            code = subprocess.run([*shlex.split(command), str(file)], check=False).returncode
        except OSError as error:
            raise UserError(f"no editor: {error}", where="$EDITOR", cure="export EDITOR=nano") from None
        if code:
            raise PassingFailure(STOPPED, f"the editor ended with code {code}", retry=False)
        saved = file.read_text(encoding="utf-8")
    _, found, text = saved.partition(_CUT)
    # Editors end a file with a line break that is not the student's.
    return (text if found else saved).removeprefix("\n").removesuffix("\n")


def _again(verdict: str, extracted: str | None) -> bool:
    err().print(f"this is graded {verdict} (found: {safe(extracted or 'no answer')})")
    return input("edit again? [Y/n] ").strip().lower() != "n"
