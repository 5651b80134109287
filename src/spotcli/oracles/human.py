"""A person with an editor, one answer after the other.

The editor (``$VISUAL``, ``$EDITOR``, else vi) opens on the wrong answer, with the problem and the reference answer in a
head that is cut off again. What is saved is the correction; saved unchanged, the answer is skipped and not shown again;
saved empty, the work stops, and the same command goes on there.
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
from spotcli.core.grading.graders import grader_of
from spotcli.errors import UserError
from spotcli.oracles import PassingFailure, Reply, Request

STOPPED = "stopped"
"""The kind of the failure by which a person ends the work."""

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

    async def correct(self, request: Request) -> Reply:
        return await asyncio.to_thread(self._correct, request)

    async def close(self) -> None:
        """Nothing is open."""

    def _correct(self, request: Request) -> Reply:
        sample = request.sample
        text = sample.response
        note = request.ask.feedback.complaint if request.ask.feedback else ""
        while True:
            text = _edit(_page(request, text, note))
            if not text.strip():
                raise PassingFailure(STOPPED, "stopped by the editor", retry=False)
            if text.strip() == sample.response.strip():
                return Reply(finish_reason="declined", reason="skipped", cost=0.0)
            # A checker of the user's own is left to the stage: only the recipe can vouch for it.
            named = sample.grader if ":" not in (sample.grader or "") else None
            graded = grader_of(named)(text, sample.answer or "")
            if graded.verdict == "right" or not sys.stdin.isatty() or not _again(graded.verdict, graded.extracted):
                return Reply(text=text, cost=0.0)


def _page(request: Request, text: str, note: str) -> str:
    sample = request.sample
    problem = "\n\n".join(message["content"] for message in sample.messages)
    head = [
        f"{sample.id}, answer {sample.trial}. Mend the answer below with as few changes as you can.",
        "Unchanged: skip it. Empty: stop; the same command goes on here.",
        "",
        *problem.splitlines(),
        "",
        f"reference: {sample.answer}",
        *(["", f"before: {note}"] if note else []),
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
