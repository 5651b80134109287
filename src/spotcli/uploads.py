"""Uploads of ``spot push`` and ``spot rectify --push-to-hub``: what is uploaded is shown, then asked."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spotcli.console import say
from spotcli.errors import SpotError, Unfinished, UserError
from spotcli.program import show_summary, work

if TYPE_CHECKING:
    from spotcli.publishing.push import PushSummary, Target

PUSH_TO_HUB = "--push-to-hub"


def push(data: Path, target: Target, *, samples: Path | None = None, yes: bool, as_json: bool) -> PushSummary:
    """Show what would be uploaded, ask, upload it.

    Args:
        yes: do not ask.
        as_json: do not show it: stdout is for the summary.

    Raises:
        UserError: the answer is no, nobody can be asked, or the pairs, their name or the hub do not allow it.
        Unfinished: the hub cannot be reached, or Ctrl-C.
    """
    from spotcli.publishing.push import push as upload

    def agreed(planned: PushSummary) -> bool:
        if not as_json:
            show_summary("Upload", planned.as_dict(), False)
        return yes or _confirmed(f"Upload to {planned.dataset} ({planned.visibility})?")

    return work(lambda: upload(data, target, samples=samples, agreed=agreed))


@dataclass(frozen=True)
class PairUpload:
    """The upload of pairs that a run makes, after it."""

    target: Target
    yes: bool
    """Do not ask."""

    def check(self, samples: Path) -> None:
        """Check, before anything is paid for, that pairs of these samples could be uploaded.

        Raises:
            UserError: they must not be published, the name is invalid, there is no token, or nobody can be asked.
        """
        from spotcli.publishing.hub import check_name, check_token
        from spotcli.publishing.selection import select_samples

        if not self.yes and not self.target.dry_run:
            _check_terminal()
        check_name(self.target.name, option=PUSH_TO_HUB)
        check_token()
        if samples.exists():  # otherwise the stage says what is missing
            work(lambda: select_samples(samples))

    def push(self, data: Path, summary: dict[str, Any] | None) -> None:
        """Upload the pairs, except in a dry run, and print the summary.

        Args:
            summary: of the run, for JSON output; None if it is printed.

        Raises:
            SpotError: as of ``push``; the notice before it names the command that uploads the pairs.
        """
        dataset = None
        try:
            if self.target.dry_run:
                say(f"{self.target.name}: a dry run uploads nothing; the name, the token and the samples were checked")
            else:
                dataset = push(data, self.target, yes=self.yes, as_json=summary is not None).as_dict()
        except SpotError:
            command = shlex.join(["spot", "push", str(data), "--to", self.target.name])
            say(f"{data}: the pairs are complete; upload them with `{command}`")
            raise
        finally:
            if summary is not None:
                show_summary("Pairs", summary | {"dataset": dataset}, True)
        if summary is None and dataset is not None:
            show_summary("Dataset", dataset, False)


def upload_of(name: str | None, *, asks: bool, dry_run: bool, yes: bool) -> PairUpload | None:
    """The upload that ``--push-to-hub`` asks for; None without it.

    Args:
        asks: whether the run asks the oracles, and so can complete the pairs.
        dry_run: only check what the upload needs.
        yes: do not ask before the upload.

    Raises:
        UserError: the run neither asks the oracles nor is a dry run.
    """
    from spotcli.publishing.push import Target

    if name is None:
        return None
    if not asks and not dry_run:
        cure = "remove it, and run `spot push` when the pairs are complete"
        raise UserError("only a run that asks the oracles uploads its pairs", where=PUSH_TO_HUB, cure=cure)
    return PairUpload(Target(name, dry_run=dry_run), yes)


def _confirmed(question: str) -> bool:
    """Ask at the terminal, on stderr.

    Raises:
        UserError: there is no terminal.
        Unfinished: Ctrl-C, or the end of the input.
    """
    _check_terminal()
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        raise Unfinished("interrupted; nothing was uploaded", cure="run the same command again") from None


def _check_terminal() -> None:
    if not sys.stdin.isatty():
        raise UserError("uploading asks first, and there is no terminal", where="--yes", cure="add --yes")
