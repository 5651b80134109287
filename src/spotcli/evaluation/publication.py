"""What an evaluation leaves beside its scores: the page, the section of the model card, the logs of inspect_ai."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spotcli import files, outputs
from spotcli.console import say
from spotcli.evaluation.answers import scores_path
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.card_section import CARD, update_card
from spotcli.evaluation.inspect_log import FOLDER, write_logs
from spotcli.evaluation.page import LATEST, REPORT, write_report
from spotcli.evaluation.scores import EvalSummary
from spotcli.recipe import Recipe

_UNSHOWN = {"output", "data_dir", "inspect_log"}
"""Keys of ``eval`` that do not change the scores."""


def describe(recipe: Recipe, summary: EvalSummary, folder: Path) -> EvalSummary:
    """Return the summary with what the page shows: settings, versions and its own path."""
    settings = recipe.eval.model_dump(mode="json", exclude_none=True, exclude=_UNSHOWN) | {"seed": recipe.seed}
    settings = {name: value for name, value in settings.items() if value not in ({}, [], "")}
    page = scores_path(recipe, summary.model, folder).with_suffix(REPORT)
    return replace(summary, settings=settings, versions=outputs.versions(), page=str(page))


def publish(recipe: Recipe, summary: EvalSummary, models: Sequence[ModelRows], folder: Path) -> None:
    """Write the page, the section of the model's card, and with ``eval.inspect_log`` the logs.

    Args:
        recipe: the whole recipe.
        summary: as ``describe`` returns it.
        models: the answers of its models, in its order.
        folder: for relative paths.

    Raises:
        UserError: a file cannot be written.
        DataError: a row of a file of scores is invalid.
    """
    scores = folder / recipe.eval.output
    page = scores_path(recipe, summary.model, folder).with_suffix(REPORT)
    write_report(page, summary)
    files.replace(scores / LATEST, [page.read_bytes()])
    checkpoint = folder / summary.model
    if update_card(checkpoint, summary):
        say(f"{checkpoint / CARD}: section about this evaluation written")
    if recipe.eval.inspect_log:
        write_logs(scores / FOLDER, summary, models)
        say(f"{scores / FOLDER}: logs written; open them with `inspect view --log-dir {scores / FOLDER}`")
