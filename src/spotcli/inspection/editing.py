"""A person's edit of y+: made in an editor, graded, and measured as ``spot rectify`` measures corrections."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from spotcli import outputs
from spotcli.core import edits
from spotcli.errors import UserError
from spotcli.grading.kinds import grade_any, grader_of
from spotcli.recipe import Recipe
from spotcli.records import Pair, Verdict

WORDS = "words and signs"
"""The unit of a change ratio without the policy's tokenizer."""


@dataclass(frozen=True)
class Measured:
    """The verdict on an edited y+ and its change ratio."""

    verdict: Verdict | None
    """None without a reference answer."""
    extracted: str | None
    change_ratio: float
    unit: str


def edited(text: str) -> str:
    """Open a text in the user's editor, and return it as it was saved.

    Raises:
        UserError: the editor cannot be started, or failed.
    """
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="spot-") as folder:
        file = Path(folder) / "chosen.md"
        file.write_text(text, encoding="utf-8", errors="replace", newline="")
        try:
            code = subprocess.run([*command, str(file)], check=False).returncode
        except OSError as error:
            raise UserError(f"failed to start the editor: {error.strerror}", cure="set EDITOR") from None
        if code:
            raise UserError(f"the editor ended with exit code {code}; nothing was changed")
        with file.open(encoding="utf-8", errors="replace", newline="") as content:
            saved = content.read()
    # Most editors end a file with a line end.
    return saved if text.endswith("\n") else re.sub(r"\r?\n\Z", "", saved)


def measure(pair: Pair, chosen: str, recipe: Recipe, data: Path) -> Measured:
    """Grade an edited y+, and measure it against y-, in tokens of the policy if its tokenizer can be loaded.

    Args:
        pair: the pair as it is in the file.
        chosen: the edited y+.
        recipe: names the grader of rows without one, and perhaps the tokenizer.
        data: the file of pairs, whose meta file names the policy.
    """
    verdict = extracted = None
    if pair.reference is not None:
        grade = grade_any(grader_of(pair.grader, recipe.grader), chosen, pair.references)
        verdict, extracted = grade.verdict, grade.extracted
    name = recipe.rectify.tokenizer or policy_of(data)
    if name is not None:
        try:
            from spotcli.policies.models import load_tokenizer

            tokenizer = load_tokenizer(name)
        except (UserError, ImportError):
            pass
        else:
            ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (pair.original, chosen)]
            return Measured(verdict, extracted, edits.change_ratio(*ids), f"tokens of {name}")
    return Measured(verdict, extracted, edits.text_change_ratio(pair.original, chosen), WORDS)


def policy_of(data: Path) -> str | None:
    """The policy in whose tokens the ratios of a file were measured; None if its meta file does not name one."""
    unit = str(outputs.read_meta(data).get("filters", {}).get("ratio_unit", ""))
    return unit.removeprefix("tokens of ") if unit.startswith("tokens of ") else None
