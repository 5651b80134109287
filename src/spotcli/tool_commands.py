"""The commands about whole runs and their files: run, plan, status, push, export, trace, why, diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spotcli import flags
from spotcli.options import Command, Given, recipe_command
from spotcli.program import app, load_recipe, show_summary, work

if TYPE_CHECKING:
    pass


@app.command(
    cls=Command,
    epilog="""[cyan]spot push data.jsonl --to my-org/my-pairs[/cyan]

See the card and what would be uploaded:
[cyan]  spot push --to my-org/my-pairs --dry-run[/cyan]""",
)
def push(
    to: flags.To,
    data: flags.PushedData = Path("data.jsonl"),
    samples: flags.PushedSamples = None,
    public: flags.Public = False,
    licence: flags.Licence = None,
    dry_run: flags.CardOnly = False,
    yes: flags.Yes = False,
    as_json: flags.AsJson = False,
) -> None:
    """Upload pairs to the Hugging Face hub, private by default: data.jsonl -> dataset.

    Pairs that a reviewer rejected are left out, and edited ones are uploaded as edited. The dataset gets a card with
    counts, oracles and costs. Rows of an evaluation or of a gated benchmark are refused.
    """
    from spotcli import uploads
    from spotcli.publishing.push import Target

    target = Target(to, public, licence, dry_run)
    summary = uploads.push(data, target, samples=samples, yes=yes, as_json=as_json)
    show_summary("Dataset", summary.as_dict(), as_json)


@recipe_command(
    app,
    "seed",
    epilog="""[cyan]spot run recipes/smollm2-135m.yaml[/cyan]

Look at the repairs before training:
[cyan]  spot run recipe.yaml --until rectify[/cyan]
[cyan]  spot inspect runs/NAME/data.jsonl[/cyan]
[cyan]  spot run recipe.yaml --from train[/cyan]""",
)
def run(
    given: Given,
    recipe: flags.RecipeArgument,
    overrides: flags.Overrides = None,
    output: flags.RunFolder = None,
    first: flags.FromStage = "sample",
    last: flags.UntilStage = "eval",
    max_hours: flags.MaxHours = None,
    max_cost: flags.MaxCost = None,
    fresh: flags.Fresh = False,
    as_json: flags.AsJson = False,
) -> None:
    """Run every stage of a recipe in order: sample, rectify, train, eval.

    Each stage resumes where an earlier start ended. At the end: the verdict, the page of the run and the next command.
    """
    from spotcli import tables
    from spotcli.run import Range, show_end
    from spotcli.run import run as stages
    from spotcli.stages.evaluate import show_tables
    from spotcli.stages.rectify import show as show_pairs

    settings = load_recipe(recipe, overrides, given)
    folder = output or Path("runs") / settings.name
    if max_cost is not None:
        settings.rectify.max_cost = min(max_cost, settings.rectify.max_cost or max_cost)
    part = Range(first, last)
    summary = work(lambda: stages(settings, folder=folder, fresh=fresh, part=part, max_hours=max_hours))
    if as_json:
        show_summary("Run", summary.as_dict(), as_json)
    else:
        if summary.rectify:
            show_pairs(summary.rectify)
        tables.seconds_per_stage(summary.seconds)
        if summary.eval:
            show_tables(summary.eval)
        show_end(summary, recipe)
    if summary.eval:
        summary.eval.raise_if_unfinished()


@recipe_command(app, "seed", epilog="[cyan]spot plan recipes/qwen3-8b.yaml --max-cost 50[/cyan]")
def plan(
    given: Given,
    recipe: flags.RecipeArgument,
    overrides: flags.Overrides = None,
    output: flags.RunFolder = None,
    no_probe: flags.NoProbe = False,
    device: flags.PlanDevice = None,
    max_hours: flags.MaxHours = None,
    max_cost: flags.MaxCost = None,
    as_json: flags.AsJson = False,
) -> None:
    """Say what a run would give and take before it starts, and what is missing.

    The policy answers the first 32 problems; spot run continues with these answers. No oracle is asked.
    """
    from spotcli.errors import BudgetReached, UserError
    from spotcli.plan import make_plan
    from spotcli.runs.projection import show_plan

    settings = load_recipe(recipe, overrides, given)
    folder = output or Path("runs") / settings.name
    limits = {"max_hours": max_hours, "max_cost": max_cost}
    result = work(lambda: make_plan(settings, folder=folder, probe=not no_probe, device=device, **limits))
    if as_json:
        show_summary("Plan", result.as_dict(), as_json)
    else:
        show_plan(result, recipe)
    if result.missing:
        missing = "1 thing is" if len(result.missing) == 1 else f"{len(result.missing)} things are"
        raise UserError(f"{missing} missing for this run", cure="see the list above")
    if next(result.exceeded(), None):
        raise BudgetReached("the run is likely to reach a limit", cure="raise the limit, or plan a smaller run")


@app.command(cls=Command, epilog="[cyan]spot status runs/smollm2-135m[/cyan]")
def status(folder: flags.StatusFolder, as_json: flags.AsJson = False) -> None:
    """Show how far a run is that another terminal, job or machine executes."""
    from spotcli.runs.status import read_status, show_status

    state = work(lambda: read_status(folder))
    if as_json:
        show_summary("Run", state.as_dict(), as_json)
    else:
        show_status(state)


@app.command(
    cls=Command,
    epilog="""[cyan]spot export samples.jsonl --for trl --model checkpoint -o grpo[/cyan]
[cyan]  spot export samples.jsonl --for verl --model checkpoint -o grpo[/cyan]""",
)
def export(
    trainer: flags.ForTrainer,
    source: flags.ExportedProblems = Path("samples.jsonl"),
    model: flags.StartModel = "checkpoint",
    output: flags.ExportFolder = Path("grpo"),
    grader: flags.ExportedGrader = None,
    limit: flags.ExportLimit = None,
    as_json: flags.AsJson = False,
) -> None:
    """Write what GRPO needs, for TRL or verl: prompts with references, the model, a reward function, a script."""
    from spotcli.exporting.export import Start
    from spotcli.exporting.export import export as write

    summary = work(lambda: write(source, Start(trainer, model, grader, limit), output))
    show_summary("Export", summary.as_dict(), as_json)


@app.command(cls=Command, epilog="[cyan]spot trace arithmetic-6*9-27 --in runs/smollm2-135m[/cyan]")
def trace(
    id: flags.TracedId, folder: flags.InRun = Path(), full: flags.Full = False, as_json: flags.AsJson = False
) -> None:
    """Tell the story of a row: problem, answers, replies, pair, decisions, training steps, scores."""
    from spotcli.receipts.terminal import show_trace
    from spotcli.receipts.trace import trace as story

    told = work(lambda: story(id, folder))
    if as_json:
        show_summary("Trace", told.as_dict(), as_json)
    else:
        show_trace(told, full=full)


@app.command(cls=Command, epilog="[cyan]spot why runs/smollm2-135m/checkpoint[/cyan]")
def why(checkpoint: flags.TrainedModel, as_json: flags.AsJson = False) -> None:
    """Show what is behind a model: data, loss, settings, seeds, versions, and whether the files have changed since."""
    from spotcli.receipts.terminal import show_why
    from spotcli.receipts.why import why as receipt

    behind = work(lambda: receipt(checkpoint))
    if as_json:
        show_summary("Why", behind.as_dict(), as_json)
    else:
        show_why(behind)


@app.command(cls=Command, epilog="[cyan]spot diff runs/gamma-0.4 runs/gamma-0.6[/cyan]")
def diff(first: flags.FirstRun, second: flags.SecondRun, as_json: flags.AsJson = False) -> None:
    """Show what differs between two runs: settings, versions, data, results."""
    from spotcli.receipts.diff import diff as compare
    from spotcli.receipts.terminal import show_diff

    compared = work(lambda: compare(first, second))
    if as_json:
        show_summary("Diff", compared.as_dict(), as_json)
    else:
        show_diff(compared)
