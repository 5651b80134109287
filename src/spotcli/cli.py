"""The commands: options in, one stage called, one summary printed.

A function's parameters are the options that are not keys of the recipe (``flags.py``); ``options.py`` adds those that
are. Nothing heavy is imported before a command runs, so ``spot --help`` is about as quick as Typer itself.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from spotcli import flags
from spotcli.options import Command, Given, Group, recipe_command

if TYPE_CHECKING:
    from spotcli.errors import SpotError
    from spotcli.recipe import Recipe

T = TypeVar("T")
INTERRUPTED = 130
"""Typer's exit code for Ctrl-C, without a message."""

app = typer.Typer(
    name="spot",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can contain API keys
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Surgical post-training: find a model's wrong answers, correct them with the smallest edit, train on the "
    "corrections, and measure what was gained and what was lost.\n\n"
    "[bold]problems -> samples -> pairs -> checkpoint -> scores[/bold]: one command per arrow. Every command resumes "
    "where it stopped.",
    epilog="""[bold]Examples[/bold]

Run all stages on a laptop, without an API key or a GPU:
[cyan]  spot run recipes/smollm2-135m.yaml[/cyan]

Write a recipe for your model, problems and GPUs:
[cyan]  spot init[/cyan]

Sample answers and grade them:
[cyan]  spot sample problems.jsonl --model Qwen/Qwen3-8B[/cyan]

Correct the wrong answers (samples.jsonl -> data.jsonl):
[cyan]  spot rectify --oracle gpt-4o[/cyan]

Show the corrections:
[cyan]  spot inspect data.jsonl[/cyan]

Train on them:
[cyan]  spot train recipes/qwen3-8b.yaml[/cyan]

Measure gains and drift:
[cyan]  spot eval checkpoint --against Qwen/Qwen3-8B[/cyan]

Every option can be set by an environment variable: SPOT_RECTIFY_ORACLE is --oracle of spot rectify.

Exit codes: 0 done; 1 internal error; 2 invalid input or settings; 3 partly done (run the same command again to \
resume); 4 stopped by the cost limit.""",
)


@app.callback(invoke_without_command=True)
def spot(version: flags.Version = False) -> None:
    if version:
        from spotcli import __version__
        from spotcli.console import out

        out().print(__version__)
        raise typer.Exit


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
        _show("Templates", {name: item.summary for name, item in TEMPLATES.items()}, as_json)
        return
    wishes = Wishes(template, model, problems, oracle, tuple(task) if task else None, base_url, gpus, gpu_memory)
    asks = sys.stdin.isatty() and not yes and template is None
    if wishes.is_empty and not yes and not asks:
        cure = "add --yes for the defaults of this machine, or --template NAME (spot init --list)"
        raise UserError("questions require a terminal", where="spot init", cure=cure)
    try:
        summary = _work(lambda: write(path, wishes, _ask if asks else None, check_tasks=check_tasks, force=force))
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

    settings = _load(recipe, overrides, given)
    if merge:
        _show("Samples", merge_shards(settings, fresh=fresh).as_dict(), as_json)
        return
    if grade:
        with standard_input(grade) as (file, name):
            graded = _work(lambda: grade_file(settings, file, name=name, fresh=fresh))
        _show("Samples", graded.as_dict(), as_json)
        return
    part = Shard.parse(shard) if shard else None
    summary = _work(lambda: stage(settings, fresh=fresh, shard=part, decontaminated=decontaminate))
    _show("Samples", summary.as_dict(), as_json)


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
    recipe: flags.RecipeFile = None,
    overrides: flags.Overrides = None,
    fresh: flags.Fresh = False,
    as_json: flags.AsJson = False,
) -> None:
    """Correct the wrong answers with the smallest edit: samples.jsonl -> data.jsonl."""
    from spotcli.stages.rectify import Action, show
    from spotcli.stages.rectify import rectify as stage

    settings = _load(recipe, overrides, given)
    action = Action.of(dry_run=dry_run, replay=replay, export=export, import_=import_)
    with standard_input(settings.rectify.samples) as (file, _):
        settings.rectify.samples = file
        summary = _work(lambda: stage(settings, fresh=fresh, action=action))
    if as_json:
        _show("Pairs", summary.as_dict(), as_json)
    else:
        show(summary)


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
    settings = _load(recipe, None, Given())
    if is_interactive(view, selection):
        wanted = SampleSize(sample, seed) if sample else None
        try:
            if surprise:
                _work(lambda: stage(settings, data=data, selection=selection, view=replace(view, quiet=True)))
            _reported(lambda: browse(settings, data=data, against=against, where=where, sample=wanted, order=sort))
        except KeyboardInterrupt:
            raise Unfinished("interrupted; all decisions are saved", cure="run the same command again") from None
        return
    if sample:
        cure = "run it on a terminal, without --id, --limit, --html and --json"
        raise UserError("--sample requires the interactive application", where="--sample", cure=cure)
    with standard_input(str(data)) as (file, _):
        summary = _reported(
            lambda: (
                show_metrics(Path(file), selection, view)
                or stage(settings, data=Path(file), against=against, selection=selection, view=view)
            )
        )
    if as_json:
        _show("Pairs", summary.as_dict(), as_json)


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

    settings = _load(recipe, overrides, given)
    summary = _work(
        lambda: stage(settings, folder=Path(), fresh=fresh, dry_run=dry_run, device=device, utilisation=mfu)
    )
    _show("Checkpoint", summary.as_dict(), as_json)


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

    settings = _load(recipe, overrides, given)
    if dry_run:
        planned = _work(lambda: plan(settings, model=model, against=against, also=also or ()))
        if as_json:
            _show("Plan", planned.as_dict(), as_json)
        else:
            show_plan(planned)
        return
    summary = _work(
        lambda: stage(settings, model=model, against=against, also=also or (), fresh=fresh, rescore=rescore)
    )
    if as_json:
        _show("Scores", summary.as_dict(), as_json)
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

    summary = _work(lambda: merge_adapter(adapter, output, dtype=dtype))
    _show("Merged model", summary.as_dict(), as_json)


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
    from spotcli.publishing.push import PushSummary, Target
    from spotcli.publishing.push import push as upload

    def agreed(planned: PushSummary) -> bool:
        from spotcli.errors import UserError

        if not as_json:
            _show("Upload", planned.as_dict(), False)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UserError("uploading asks first, and there is no terminal", where="--yes", cure="add --yes")
        return typer.confirm(f"Upload to {planned.dataset} ({planned.visibility})?", err=True)

    target = Target(to, public, licence, dry_run)
    summary = _work(lambda: upload(data, target, samples=samples, agreed=agreed))
    _show("Dataset", summary.as_dict(), as_json)


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

    settings = _load(recipe, overrides, given)
    folder = output or Path("runs") / settings.name
    if max_cost is not None:
        settings.rectify.max_cost = min(max_cost, settings.rectify.max_cost or max_cost)
    part = Range(first, last)
    summary = _work(lambda: stages(settings, folder=folder, fresh=fresh, part=part, max_hours=max_hours))
    if as_json:
        _show("Run", summary.as_dict(), as_json)
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

    settings = _load(recipe, overrides, given)
    folder = output or Path("runs") / settings.name
    limits = {"max_hours": max_hours, "max_cost": max_cost}
    result = _work(lambda: make_plan(settings, folder=folder, probe=not no_probe, device=device, **limits))
    if as_json:
        _show("Plan", result.as_dict(), as_json)
    else:
        show_plan(result, recipe)
    if result.missing:
        raise UserError(f"{len(result.missing)} things are missing for this run", cure="see the list above")
    if next(result.exceeded(), None):
        raise BudgetReached("the run is likely to reach a limit", cure="raise the limit, or plan a smaller run")


@app.command(cls=Command, epilog="[cyan]spot status runs/smollm2-135m[/cyan]")
def status(folder: flags.StatusFolder, as_json: flags.AsJson = False) -> None:
    """Show how far a run is that another terminal, job or machine executes."""
    from spotcli.runs.status import read_status, show_status

    state = _work(lambda: read_status(folder))
    if as_json:
        _show("Run", state.as_dict(), as_json)
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

    summary = _work(lambda: write(source, Start(trainer, model, grader, limit), output))
    _show("Export", summary.as_dict(), as_json)


@app.command(cls=Command, epilog="[cyan]spot trace arithmetic-6*9-27 --in runs/smollm2-135m[/cyan]")
def trace(
    id: flags.TracedId, folder: flags.InRun = Path(), full: flags.Full = False, as_json: flags.AsJson = False
) -> None:
    """Tell the story of a row: problem, answers, replies, pair, decisions, training steps, scores."""
    from spotcli.receipts.terminal import show_trace
    from spotcli.receipts.trace import trace as story

    told = _work(lambda: story(id, folder))
    if as_json:
        _show("Trace", told.as_dict(), as_json)
    else:
        show_trace(told, full=full)


@app.command(cls=Command, epilog="[cyan]spot why runs/smollm2-135m/checkpoint[/cyan]")
def why(checkpoint: flags.TrainedModel, as_json: flags.AsJson = False) -> None:
    """Show what is behind a model: data, loss, settings, seeds, versions, and whether the files have changed since."""
    from spotcli.receipts.terminal import show_why
    from spotcli.receipts.why import why as receipt

    behind = _work(lambda: receipt(checkpoint))
    if as_json:
        _show("Why", behind.as_dict(), as_json)
    else:
        show_why(behind)


@app.command(cls=Command, epilog="[cyan]spot diff runs/gamma-0.4 runs/gamma-0.6[/cyan]")
def diff(first: flags.FirstRun, second: flags.SecondRun, as_json: flags.AsJson = False) -> None:
    """Show what differs between two runs: settings, versions, data, results."""
    from spotcli.receipts.diff import diff as compare
    from spotcli.receipts.terminal import show_diff

    compared = _work(lambda: compare(first, second))
    if as_json:
        _show("Diff", compared.as_dict(), as_json)
    else:
        show_diff(compared)


def _load(recipe: Path | None, overrides: list[str] | None, given: Given) -> Recipe:
    from spotcli.console import detail
    from spotcli.recipe_yaml import load, public_sources

    settings = load(recipe, overrides, given, given.environment)
    sources = public_sources(settings)
    for key, source in sources.items():
        if not any(inner.startswith(f"{key}.") for inner in sources):
            detail(f"{key}: {source}")
    return settings


def _work(stage: Callable[[], T]) -> T:
    """Run a stage with stdout reserved for its result: some libraries log to stdout.

    Raises:
        UserError: a full disk, a read-only folder or another reason why files cannot be written.
        Unfinished: Ctrl-C, SIGTERM, or a closed terminal.
    """
    from spotcli.errors import Unfinished

    interrupted = Unfinished("interrupted; finished work is saved", cure="run the same command again to resume")
    with redirect_stdout(sys.stderr):
        try:
            return _reported(stage)
        except KeyboardInterrupt:
            raise interrupted from None


def _reported(stage: Callable[[], T]) -> T:
    """Run a stage.

    Raises:
        KeyboardInterrupt: the terminal was closed.
        UserError: a full disk, a read-only folder or another reason why files cannot be read or written.
    """
    from spotcli.errors import storage_errors_with_cures
    from spotcli.interrupts import leave_closed_terminal

    with storage_errors_with_cures():
        try:
            return stage()
        except OSError as error:
            if error.errno == errno.EIO and leave_closed_terminal():
                raise KeyboardInterrupt from None
            raise


@contextmanager
def standard_input(name: str) -> Iterator[tuple[str, str]]:
    """Yield the file to read and its name for records: for ``-`` a temporary copy of stdin, which is read twice."""
    if name != "-":
        yield name, name
        return
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="spot-") as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield str(copy), name


def _show(title: str, values: dict[str, Any], as_json: bool) -> None:
    from spotcli import tables

    if as_json:
        tables.as_json(values)
    else:
        tables.facts(title, values)


def main() -> None:
    """Run the ``spot`` command; show a ``SpotError`` without a traceback and exit with its code."""
    import gc

    if sys.platform == "win32":
        print("spot does not run on Windows: it locks its files with fcntl\n  cure: run it in WSL 2", file=sys.stderr)
        sys.exit(2)

    from spotcli.console import escape_library_messages
    from spotcli.errors import SpotError, Unfinished, storage_error
    from spotcli.interrupts import terminated_as_interrupted

    escape_library_messages()
    try:
        with terminated_as_interrupted():
            app()
    except SpotError as error:
        _fail(error)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        _fail(Unfinished("interrupted before the work began", cure="run the same command again"))
    except OSError as error:
        # Results are printed after the work: stdout can be a file on a full disk.
        known = storage_error(error)
        if known is None:
            raise
        _fail(known)
    finally:
        # Otherwise the interpreter searches all objects for cycles when it ends: seconds with litellm or torch.
        gc.freeze()


def _fail(error: SpotError) -> None:
    import signal

    from spotcli.console import show_error
    from spotcli.interrupts import end_with

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would interrupt the message
    show_error(error)
    end_with(error.exit_code)
    sys.exit(error.exit_code)
