"""The commands: options in, one stage called, one summary printed.

Each function declares the options that are not keys of the recipe; ``options.py`` adds those that are. Nothing heavy is
imported before a command runs, so ``spot --help`` is about as quick as Typer itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from spotcli.options import Command, Group, recipe_command

if TYPE_CHECKING:
    from spotcli.errors import SpotError
    from spotcli.recipe import Recipe

T = TypeVar("T")
Given = dict[str, Any]
"""Recipe keys given as options: dotted key -> value."""

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

Exit codes: 0 done; 1 internal error; 2 invalid input or settings; 3 partly done (run the same command again to \
resume); 4 stopped by the cost limit.""",
)

FILES, RUN = "Input and output", "Run"

RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Read settings from this recipe.", rich_help_panel=FILES),
]
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override a key of the recipe; repeatable.",
        rich_help_panel=FILES,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over; the old output is renamed.", rich_help_panel=RUN)]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.", rich_help_panel=RUN)]


@app.callback(invoke_without_command=True)
def spot(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from spotcli import __version__
        from spotcli.console import out

        out().print(__version__)
        raise typer.Exit


@recipe_command(
    app,
    *("sample", "model", "seed"),
    epilog="""[cyan]spot sample builtin:arithmetic --model builtin:smollm2-135m --limit 100[/cyan]

Qwen3-8B on all visible GPUs:
[cyan]  spot sample hf:BytedTsinghua-SIA/DAPO-Math-17k --model Qwen/Qwen3-8B[/cyan]

An endpoint, such as `vllm serve`:
[cyan]  spot sample --model Qwen/Qwen3-8B --base-url http://HOST:8000/v1[/cyan]

The first of four machines; merge the shards with --merge:
[cyan]  spot sample --model Qwen/Qwen3-8B --shard 1/4[/cyan]""",
)
def sample(  # noqa: PLR0913  # one parameter per option
    given: Given,
    decontaminate: Annotated[
        bool,
        typer.Option(
            "--decontaminate", help="Leave out problems that occur in the evaluation tasks.", rich_help_panel=FILES
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only shard I of N of the problems \\[default: all].", rich_help_panel=FILES),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the finished shards into one file.", rich_help_panel=FILES)
    ] = False,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Answer problems with the policy and grade each answer: problems -> samples.jsonl."""
    from spotcli.sampling import shards
    from spotcli.stages.sample import sample as stage

    settings = _load(recipe, overrides, given)
    if merge:
        _show("Samples", shards.merge(Path(settings.sample.output), fresh=fresh).as_dict(), as_json)
        return
    part = shards.Shard.parse(shard) if shard else None
    summary = _work(lambda: stage(settings, fresh=fresh, shard=part, decontaminated=decontaminate))
    _show("Samples", summary.as_dict(), as_json)


@recipe_command(
    app,
    *("rectify", "seed"),
    epilog="""With OPENAI_API_KEY in the environment, for at most 20 US dollars:
[cyan]  spot rectify --oracle gpt-4o --max-cost 20[/cyan]""",
)
def rectify(  # noqa: PLR0913  # one parameter per option
    given: Given,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the open cases to a file that you edit.", rich_help_panel="By hand"),
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Read the edited file.", rich_help_panel="By hand")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the planned requests and their cost; send nothing.", rich_help_panel=RUN),
    ] = False,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Judge the recorded replies again; send nothing.", rich_help_panel=RUN),
    ] = False,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Correct the wrong answers with the smallest edit: samples.jsonl -> data.jsonl."""
    from spotcli.stages.rectify import rectify as stage

    settings = _load(recipe, overrides, given)
    summary = _work(
        lambda: stage(settings, fresh=fresh, dry_run=dry_run, replay=replay, export=export, import_=import_)
    )
    _show("Pairs", summary.as_dict(), as_json)


@app.command(cls=Command, epilog="[cyan]spot inspect data.jsonl --where 'ratio>0.3'[/cyan]")
def inspect(  # noqa: PLR0913  # one parameter per option
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The file of pairs.")] = Path("data.jsonl"),
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="Show only the pair with this id.", rich_help_panel="Pairs")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Show only pairs that match, such as 'ratio>0.3'.", rich_help_panel="Pairs"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Show at most N pairs; 0 shows only the overview \\[default: all].",
            rich_help_panel="Pairs",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page instead.", rich_help_panel=FILES)
    ] = None,
    recipe: RecipeFile = None,
    as_json: Json = False,
) -> None:
    """Show the corrections: each pair as a diff, and an overview of the file."""
    from spotcli.stages.review import review as stage

    settings = _load(recipe, None, {})
    summary = stage(settings, folder=Path(), data=data, id=id, where=where, html=html, limit=limit, quiet=as_json)
    if as_json:
        _show("Pairs", summary.as_dict(), as_json)


@recipe_command(app, "seed", epilog="[cyan]spot train recipes/qwen3-8b.yaml -s train.objective=dpo[/cyan]")
def train(  # noqa: PLR0913  # one parameter per option
    given: Given,
    recipe: RecipeArgument,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Estimate training time and memory without loading weights.",
            rich_help_panel="Estimate",
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="GPU to estimate for.", rich_help_panel="Estimate")
    ] = "h800",
    mfu: Annotated[
        float,
        typer.Option(
            metavar="X", min=0.01, max=1, help="Fraction of its peak FLOP/s that is used.", rich_help_panel="Estimate"
        ),
    ] = 0.4,
    fresh: Fresh = False,
    as_json: Json = False,
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
def evaluate(  # noqa: PLR0913  # one parameter per option
    given: Given,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder, a model of the Hugging Face hub or a built-in model.", show_default=False
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Base model, for a paired test and the drift.", rich_help_panel="Evaluation"
        ),
    ] = None,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Measure gains and drift: checkpoint -> scores."""
    from spotcli import tables
    from spotcli.stages.evaluate import evaluate as stage

    settings = _load(recipe, overrides, given)
    summary = _work(lambda: stage(settings, model=model, against=against, fresh=fresh))
    if as_json:
        _show("Scores", summary.as_dict(), as_json)
    else:
        tables.scores(summary)


@recipe_command(app, "seed", epilog="[cyan]spot run recipes/smollm2-135m.yaml[/cyan]")
def run(  # one parameter per option
    given: Given,
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder of the run \\[default: runs/NAME].",
            rich_help_panel=FILES,
        ),
    ] = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Run every stage of a recipe in order: sample, rectify, train, eval."""
    from spotcli import tables
    from spotcli.run import run as stages

    settings = _load(recipe, overrides, given)
    folder = output or Path("runs") / settings.name
    summary = _work(lambda: stages(settings, folder=folder, fresh=fresh))
    if as_json:
        _show("Run", summary.as_dict(), as_json)
    else:
        tables.run(summary)


def _load(recipe: Path | None, overrides: list[str] | None, given: Given) -> Recipe:
    from spotcli.recipe_yaml import load

    return load(recipe, overrides, given)


def _work(stage: Callable[[], T]) -> T:
    """Run a stage with stdout reserved for its result: some libraries log to stdout."""
    with redirect_stdout(sys.stderr):
        return stage()


def _show(title: str, values: dict[str, Any], as_json: bool) -> None:
    from spotcli import tables

    if as_json:
        tables.as_json(values)
    else:
        tables.facts(title, values)


def main() -> None:
    """Run the ``spot`` command; show a ``SpotError`` without a traceback and exit with its code."""
    from spotcli.errors import SpotError, Unfinished

    try:
        app()
    except SpotError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(Unfinished("interrupted; finished work is saved", cure="run the same command again to resume"))


def _fail(error: SpotError) -> None:
    from spotcli.console import show_error

    show_error(error)
    sys.exit(error.exit_code)
