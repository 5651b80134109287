"""The commands of the stages, and ``spot init`` and ``spot merge``: options in, one stage called, one summary printed.

A function's parameters are the options that are not keys of the recipe (``flags.py``); ``options.py`` adds those that
are. Nothing heavy is imported before a command runs, so ``spot --help`` is about as quick as Typer itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spotcli import flags
from spotcli.options import Command, Given, recipe_command
from spotcli.program import app, load_recipe, reported, show_summary, standard_input, work

if TYPE_CHECKING:
    pass


@app.command(
    cls=Command,
    epilog="""[cyan]spot init[/cyan]

A demo for a CPU, without questions:
[cyan]  spot init --template demo && spot run recipe.yaml[/cyan]

Your own problems:
[cyan]  spot init --model Qwen/Qwen3-8B --problems problems.jsonl --oracle gpt-4o[/cyan]""",
)
def init(
    path: flags.RecipeTarget = Path("recipe.yaml"),
    template: flags.TemplateName = None,
    model: flags.NewModel = None,
    problems: flags.NewProblems = None,
    oracle: flags.NewOracle = None,
    task: flags.NewTasks = None,
    base_url: flags.NewBaseUrl = None,
    gpus: flags.Gpus = None,
    gpu_memory: flags.GpuMemory = None,
    list_templates: flags.ListTemplates = False,
    schema: flags.Schema = False,
    yes: flags.Defaults = False,
    force: flags.Force = False,
    as_json: flags.AsJson = False,
) -> None:
    """Write a commented recipe for this machine: answers to a few questions -> recipe.yaml."""
    from spotcli import tables
    from spotcli.errors import Unfinished, UserError
    from spotcli.stages.evaluate import check_tasks
    from spotcli.templates.answers import Wishes
    from spotcli.templates.catalog import TEMPLATES
    from spotcli.templates.writing import init as write
    from spotcli.templates.writing import schema_text

    if schema:
        print(schema_text(), end="")
        return
    if list_templates:
        show_summary("Templates", {name: item.summary for name, item in TEMPLATES.items()}, as_json)
        return
    wishes = Wishes(template, model, problems, oracle, tuple(task) if task else None, base_url, gpus, gpu_memory)
    asks = sys.stdin.isatty() and not yes and template is None
    if wishes.is_empty and not yes and not asks:
        cure = "add --yes for the defaults of this machine, or --template NAME (spot init --list)"
        raise UserError("questions require a terminal", where="spot init", cure=cure)
    try:
        summary = work(lambda: write(path, wishes, _ask if asks else None, check_tasks=check_tasks, force=force))
    except typer.Abort:
        raise Unfinished("interrupted; nothing was written", cure="run the same command again") from None
    if as_json:
        tables.as_json(summary.as_dict())
    else:
        tables.next_commands(
            f"{summary.recipe} written (template {summary.template}, {summary.hardware})", summary.next
        )


def _ask(question: str, default: str) -> str:
    """Ask a question at the terminal, on stderr."""
    return str(typer.prompt(question, default=default, err=True)).strip() or default


@recipe_command(
    app,
    *("sample", "model", "seed"),
    epilog="""[cyan]spot sample builtin:arithmetic --model builtin:smollm2-135m --limit 100[/cyan]

Qwen3-8B on all visible GPUs:
[cyan]  spot sample hf:BytedTsinghua-SIA/DAPO-Math-17k --model Qwen/Qwen3-8B[/cyan]

An endpoint, such as `vllm serve`:
[cyan]  spot sample --model Qwen/Qwen3-8B --base-url http://HOST:8000/v1[/cyan]

Answers that were generated elsewhere:
[cyan]  spot sample --grade answers.jsonl[/cyan]

The first of four machines; merge the shards with --merge:
[cyan]  spot sample --model Qwen/Qwen3-8B --shard 1/4[/cyan]""",
)
def sample(
    given: Given,
    decontaminate: flags.Decontaminate = False,
    shard: flags.Shard = None,
    merge: flags.Merge = False,
    grade: flags.Grade = None,
    recipe: flags.RecipeFile = None,
    overrides: flags.Overrides = None,
    fresh: flags.Fresh = False,
    as_json: flags.AsJson = False,
) -> None:
    """Answer problems with the policy and grade each answer: problems -> samples.jsonl."""
    from spotcli.stages.sample import Shard, grade_file, merge_shards
    from spotcli.stages.sample import sample as stage

    settings = load_recipe(recipe, overrides, given)
    if merge:
        show_summary("Samples", merge_shards(settings, fresh=fresh).as_dict(), as_json)
        return
    if grade:
        with standard_input(grade) as (file, name):
            graded = work(lambda: grade_file(settings, file, name=name, fresh=fresh))
        show_summary("Samples", graded.as_dict(), as_json)
        return
    part = Shard.parse(shard) if shard else None
    summary = work(lambda: stage(settings, fresh=fresh, shard=part, decontaminated=decontaminate))
    show_summary("Samples", summary.as_dict(), as_json)


@recipe_command(
    app,
    *("rectify", "rectify.policy.continuations", "rectify.policy.search", "seed"),
    epilog="""With OPENAI_API_KEY in the environment, for at most 20 US dollars:
[cyan]  spot rectify --oracle gpt-4o --max-cost 20[/cyan]""",
)
def rectify(
    given: Given,
    export: flags.Export = None,
    import_: flags.Import = None,
    dry_run: flags.PlanRequests = False,
    replay: flags.Replay = False,
    push_to_hub: flags.PushToHub = None,
    yes: flags.Yes = False,
    recipe: flags.RecipeFile = None,
    overrides: flags.Overrides = None,
    fresh: flags.Fresh = False,
    as_json: flags.AsJson = False,
) -> None:
    """Correct the wrong answers with the smallest edit: samples.jsonl -> data.jsonl."""
    from spotcli import uploads
    from spotcli.stages.rectify import Action, show
    from spotcli.stages.rectify import rectify as stage

    settings = load_recipe(recipe, overrides, given)
    action = Action.of(dry_run=dry_run, replay=replay, export=export, import_=import_)
    upload = uploads.upload_of(push_to_hub, asks=action.kind == "ask", dry_run=action.kind == "dry run", yes=yes)
    with standard_input(settings.rectify.samples) as (file, _):
        settings.rectify.samples = file
        if upload:
            upload.check(Path(file))
        summary = work(lambda: stage(settings, fresh=fresh, action=action))
    if not as_json:
        show(summary)
    elif not upload:
        show_summary("Pairs", summary.as_dict(), as_json)
    if upload:
        upload.push(Path(settings.rectify.output), summary.as_dict() if as_json else None)


@app.command(
    cls=Command,
    epilog="""[cyan]spot inspect data.jsonl --where 'ratio>0.3'[/cyan]
[cyan]  spot inspect data.jsonl --where 'first<0.5 and not verdict=right'[/cyan]

Problems that the trained model no longer solves:
[cyan]  spot inspect scores/checkpoint.jsonl --where lost[/cyan]

What is trained, the pairs that surprise the policy most first:
[cyan]  spot inspect data.jsonl --tokens --surprise --sort surprise[/cyan]""",
)
def inspect(
    data: flags.Data = Path("data.jsonl"),
    against: flags.BaseScores = None,
    id: flags.Id = None,
    where: flags.Where = None,
    limit: flags.ShownPairs = None,
    html: flags.Html = None,
    sample: flags.SampledPairs = None,
    seed: flags.SampleSeed = 0,
    sort: flags.Sort = "file",
    tokens: flags.Tokens = False,
    surprise: flags.Surprise = False,
    recipe: flags.RecipeFile = None,
    as_json: flags.AsJson = False,
) -> None:
    """Show corrections as diffs and decide about them, or what an evaluation won and lost."""
    from dataclasses import replace

    from spotcli.errors import Unfinished, UserError
    from spotcli.stages.review import SampleSize, Selection, TokenOptions, View, browse, is_interactive, show_metrics
    from spotcli.stages.review import review as stage

    selection, view = Selection(id, where), View(limit, html, as_json, TokenOptions(tokens, surprise, sort))
    settings = load_recipe(recipe, None, Given())
    if is_interactive(view, selection):
        wanted = SampleSize(sample, seed) if sample else None
        try:
            if surprise:
                work(lambda: stage(settings, data=data, selection=selection, view=replace(view, quiet=True)))
            reported(lambda: browse(settings, data=data, against=against, where=where, sample=wanted, order=sort))
        except KeyboardInterrupt:
            raise Unfinished("interrupted; all decisions are saved", cure="run the same command again") from None
        return
    if sample:
        cure = "run it on a terminal, without --id, --limit, --html and --json"
        raise UserError("--sample requires the interactive application", where="--sample", cure=cure)
    with standard_input(str(data)) as (file, _):
        summary = reported(
            lambda: (
                show_metrics(Path(file), selection, view)
                or stage(settings, data=Path(file), against=against, selection=selection, view=view)
            )
        )
    if as_json:
        show_summary("Pairs", summary.as_dict(), as_json)


@recipe_command(app, "seed", epilog="[cyan]spot train recipes/qwen3-8b.yaml -s train.objective=dpo[/cyan]")
def train(
    given: Given,
    recipe: flags.RecipeArgument,
    overrides: flags.Overrides = None,
    dry_run: flags.EstimateOnly = False,
    device: flags.Device = "h800",
    mfu: flags.Mfu = 0.4,
    fresh: flags.Fresh = False,
    as_json: flags.AsJson = False,
) -> None:
    """Train on the pairs and stay close to the starting policy: data.jsonl -> checkpoint."""
    from spotcli.stages.train import train as stage

    settings = load_recipe(recipe, overrides, given)
    summary = work(lambda: stage(settings, folder=Path(), fresh=fresh, dry_run=dry_run, device=device, utilisation=mfu))
    show_summary("Checkpoint", summary.as_dict(), as_json)


@recipe_command(
    app,
    *("eval", "seed"),
    name="eval",
    epilog="[cyan]spot eval checkpoint --against builtin:smollm2-135m --trials 4[/cyan]",
)
def evaluate(
    given: Given,
    model: flags.Model,
    against: flags.Against = None,
    also: flags.Also = None,
    rescore: flags.Rescore = False,
    dry_run: flags.PlanAnswers = False,
    recipe: flags.RecipeFile = None,
    overrides: flags.Overrides = None,
    fresh: flags.Fresh = False,
    as_json: flags.AsJson = False,
) -> None:
    """Measure gains and drift: checkpoint -> scores."""
    from spotcli.stages.evaluate import evaluate as stage
    from spotcli.stages.evaluate import plan, show, show_plan

    settings = load_recipe(recipe, overrides, given)
    if dry_run:
        planned = work(lambda: plan(settings, model=model, against=against, also=also or ()))
        if as_json:
            show_summary("Plan", planned.as_dict(), as_json)
        else:
            show_plan(planned)
        return
    summary = work(lambda: stage(settings, model=model, against=against, also=also or (), fresh=fresh, rescore=rescore))
    if as_json:
        show_summary("Scores", summary.as_dict(), as_json)
    else:
        show(summary)
    summary.raise_if_unfinished()


@app.command(cls=Command, epilog="[cyan]spot merge checkpoint -o merged[/cyan]")
def merge(
    adapter: flags.Adapter,
    output: flags.MergedFolder = Path("merged"),
    dtype: flags.MergedDtype = "auto",
    as_json: flags.AsJson = False,
) -> None:
    """Merge a LoRA adapter into its base model: adapter -> whole model."""
    from spotcli.policies.adapters import merge_adapter

    summary = work(lambda: merge_adapter(adapter, output, dtype=dtype))
    show_summary("Merged model", summary.as_dict(), as_json)
