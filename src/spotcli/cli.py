"""The commands: options in, one stage called, one summary printed.

Nothing heavy is imported before a command runs, so that ``spot --help`` is as quick as Typer itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from spotcli.recipe import Recipe

T = TypeVar("T")

app = typer.Typer(
    name="spot",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold keys
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Surgical post-training: find a model's wrong answers, repair them with the smallest edit, train on the
    repairs, and prove what was gained and what was lost.

    [bold]problems -> samples -> pairs -> checkpoint -> scores[/bold], one command an arrow; each resumes where it
    stopped.""",
    epilog="""[bold]Examples[/bold]

[cyan]spot run recipes/smollm2-135m.yaml[/cyan]  everything, on a laptop without a key or a GPU

[cyan]spot sample problems.jsonl --model Qwen/Qwen3-8B[/cyan]  find the wrong answers

[cyan]spot rectify --oracle gpt-4o[/cyan]  have them repaired: samples.jsonl -> data.jsonl

[cyan]spot inspect data.jsonl[/cyan]  look at the repairs

[cyan]spot train recipes/qwen3-8b.yaml[/cyan]  train on them

[cyan]spot eval checkpoint --against Qwen/Qwen3-8B[/cyan]  what was gained, and what it cost

Exit codes: 0 done, 1 our fault, 2 your input, 3 done in part (the same command goes on), 4 stopped by the budget.""",
)

RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Take this command's settings from a recipe.")]
RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a recipe's key; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary on stdout.")]
Seed = Annotated[int | None, typer.Option(help="Every random choice derives from it.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start anew; the old output is kept aside.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N problems.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where the result goes.", show_default=False)]


@app.callback(invoke_without_command=True)
def spot(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        from spotcli import __version__

        print(__version__)
        raise typer.Exit


@app.command(
    epilog="""[cyan]spot sample builtin:arithmetic --model builtin:smollm2-135m --limit 100[/cyan]

[cyan]spot sample hf:BytedTsinghua-SIA/DAPO-Math-17k --model Qwen/Qwen3-8B --thinking off[/cyan]  on all visible GPUs

[cyan]spot sample --model Qwen/Qwen3-8B --base-url http://HOST:8000/v1[/cyan]  an endpoint, such as `vllm serve`

[cyan]spot sample --model Qwen/Qwen3-8B --shard 1/4[/cyan]  on the first of four machines; then --merge"""
)
def sample(
    problems: Annotated[
        str | None,
        typer.Argument(
            help="JSONL, Parquet or CSV file, hf:org/name\\[:config]\\[:split] or builtin:arithmetic. "
            "[dim]\\[problems.jsonl][/dim]"
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The policy: folder, hub id or built-in.")] = None,
    output: Output = None,
    engine: Annotated[str | None, typer.Option(help="auto, vllm, transformers or api. [dim]\\[auto][/dim]")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Answers for each problem.")] = None,
    limit: Limit = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy. [dim]\\[0.7][/dim]")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Answers are cut here.")] = None,
    thinking: Annotated[str | None, typer.Option(help="on, off or auto, the chat template's default.")] = None,
    keep_tokens: Annotated[bool | None, typer.Option("--keep-tokens", help="Keep the emitted token ids.")] = None,
    base_url: Annotated[str | None, typer.Option(help="An endpoint's address; then the engine is api.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests to an endpoint in flight.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="vLLM engines. [dim]\\[one a GPU][/dim]")] = None,
    python: Annotated[str | None, typer.Option(help="The interpreter that has vLLM, if it is another.")] = None,
    decontaminate: Annotated[
        bool, typer.Option("--decontaminate", help="Leave out problems that the evaluation tasks hold.")
    ] = False,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only the i-th of n parts of the problems.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Put the parts of a sharded job together.")] = False,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """The policy answers problems; every answer is graded: problems -> samples.jsonl."""
    from spotcli.sampling import shards
    from spotcli.stages.sample import sample as stage

    settings = _settings(
        recipe,
        overrides,
        {
            "model": model,
            "seed": seed,
            "sample.problems": problems,
            "sample.output": output and str(output),
            "sample.engine": engine,
            "sample.trials": trials,
            "sample.limit": limit,
            "sample.temperature": temperature,
            "sample.max_new_tokens": max_new_tokens,
            "sample.thinking": thinking,
            "sample.keep_tokens": keep_tokens,
            "sample.base_url": base_url,
            "sample.concurrency": concurrency,
            "sample.workers": workers,
            "sample.python": python,
        },
    )
    if merge:
        _show("Samples", shards.merge(Path(settings.sample.output), fresh=fresh).as_dict(), as_json)
        return
    part = shards.Shard.parse(shard) if shard else None
    summary = _work(lambda: stage(settings, fresh=fresh, shard=part, decontaminated=decontaminate))
    _show("Samples", summary.as_dict(), as_json)


@app.command(epilog="[cyan]spot rectify --oracle gpt-4o --max-cost 20[/cyan]  the key is read from OPENAI_API_KEY")
def rectify(
    samples: Annotated[str | None, typer.Argument(help="The graded answers. [dim]\\[samples.jsonl][/dim]")] = None,
    oracle: Annotated[
        str | None, typer.Option(help="A litellm model (gpt-4o, gemini/gemini-2.5-pro, ...) or symbolic.")
    ] = None,
    output: Output = None,
    mode: Annotated[
        str | None,
        typer.Option(help="surgery (corrections), direct (the oracle's own solutions) or self (right answers)."),
    ] = None,
    gamma: Annotated[float | None, typer.Option(min=0, max=1, help="Keep a pair up to this change ratio.")] = None,
    reply: Annotated[str | None, typer.Option(help="rewrite (whole answer) or edits (search/replace hunks).")] = None,
    reference: Annotated[
        bool | None, typer.Option("--reference/--no-reference", help="Show the reference answer to the oracle.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Never cost more than this, in US dollars.")] = None,
    target: Annotated[int | None, typer.Option(min=1, help="Stop when N pairs are accepted.")] = None,
    then: Annotated[list[str] | None, typer.Option(help="An oracle to try next on what is left; repeatable.")] = None,
    cut: Annotated[bool | None, typer.Option("--cut", help="Correct cut answers too, as if they were wrong.")] = None,
    attempts: Annotated[int | None, typer.Option(min=1, help="Times each oracle is asked, with the reason.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests in flight.")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Reply tokens a request.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="The oracle's.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="US dollars a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="US dollars a million reply tokens.")] = None,
    base_url: Annotated[str | None, typer.Option(help="The provider's address.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokens the change ratio counts.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing; say what it would ask and cost.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Ask nothing; judge the replies on disk again.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write what is open into a file to be edited by you.")] = None,
    import_: Annotated[Path | None, typer.Option("--import", help="Read such a file back.")] = None,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """An oracle repairs the wrong answers with the smallest edit: samples.jsonl -> data.jsonl."""
    from spotcli.stages.rectify import Action
    from spotcli.stages.rectify import rectify as stage

    settings = _settings(
        recipe,
        overrides,
        {
            "seed": seed,
            "rectify.samples": samples,
            "rectify.oracle": oracle,
            "rectify.output": output and str(output),
            "rectify.mode": mode,
            "rectify.gamma": gamma,
            "rectify.reply": reply,
            "rectify.reference": reference,
            "rectify.max_cost": max_cost,
            "rectify.target": target,
            "rectify.then": then or None,
            "rectify.cut": cut,
            "rectify.attempts": attempts,
            "rectify.concurrency": concurrency,
            "rectify.rpm": rpm,
            "rectify.tpm": tpm,
            "rectify.max_tokens": max_tokens,
            "rectify.temperature": temperature,
            "rectify.price_in": price_in,
            "rectify.price_out": price_out,
            "rectify.base_url": base_url,
            "rectify.tokenizer": tokenizer,
        },
    )
    action = Action.of(dry_run=dry_run, replay=replay, export=export, import_=import_)
    summary = _work(lambda: stage(settings, fresh=fresh, action=action))
    _show("Pairs", summary.as_dict(), as_json)


@app.command(epilog="[cyan]spot inspect data.jsonl --where 'ratio>0.3'[/cyan]")
def inspect(
    data: Annotated[Path, typer.Argument(help="The pairs.")] = Path("data.jsonl"),
    id: Annotated[str | None, typer.Option(help="Only the pair with this id.")] = None,
    where: Annotated[str | None, typer.Option(help="Only pairs that fit, such as 'ratio>0.3'.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Show at most N pairs; 0 shows the file as a whole.")] = None,
    recipe: RecipeFile = None,
    as_json: Json = False,
) -> None:
    """Look at the repairs: each pair as a diff, and the file as a whole."""
    from spotcli.stages.review import review as stage

    summary = stage(
        _settings(recipe, None, {}), folder=Path(), data=data, id=id, where=where, html=html, limit=limit, quiet=as_json
    )
    if as_json:
        _show("Pairs", summary.as_dict(), as_json)


@app.command(epilog="[cyan]spot train recipes/qwen3-8b.yaml -s train.objective=dpo[/cyan]")
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load no weights; say what it would train, take and cost.")
    ] = False,
    device: Annotated[str, typer.Option(help="The GPU that a dry run reckons with.")] = "h800",
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="The share of its peak that is reached.")] = 0.4,
    seed: Seed = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train on the pairs, tethered to the starting policy: data.jsonl -> checkpoint."""
    from spotcli.stages.train import train as stage

    settings = _settings(recipe, overrides, {"seed": seed})
    summary = _work(
        lambda: stage(settings, folder=Path(), fresh=fresh, dry_run=dry_run, device=device, utilisation=mfu)
    )
    _show("Checkpoint", summary.as_dict(), as_json)


@app.command(
    "eval", epilog="[cyan]spot eval checkpoint --task arithmetic --against builtin:smollm2-135m --trials 4[/cyan]"
)
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder, hub id or built-in.", show_default=False)],
    task: Annotated[list[str] | None, typer.Option(help="arithmetic or connect4; repeatable.")] = None,
    against: Annotated[str | None, typer.Option(help="The base model: paired test and drift.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Answers for each problem: k of avg@k.")] = None,
    limit: Limit = None,
    output: Output = None,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """What was gained, and what it cost: checkpoint -> scores."""
    from spotcli import tables
    from spotcli.stages.evaluate import evaluate as stage

    settings = _settings(
        recipe,
        overrides,
        {
            "seed": seed,
            "eval.tasks": task or None,
            "eval.trials": trials,
            "eval.limit": limit,
            "eval.output": output and str(output),
        },
    )
    summary = _work(lambda: stage(settings, model=model, against=against, fresh=fresh))
    if as_json:
        _show("Scores", summary.as_dict(), as_json)
    else:
        tables.scores(summary)


@app.command(epilog="[cyan]spot run recipes/smollm2-135m.yaml[/cyan]")
def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder. [dim]\\[runs/NAME][/dim]")
    ] = None,
    seed: Seed = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Every stage of a recipe, in order: sample, rectify, train, eval. Resumable."""
    from spotcli import tables
    from spotcli.run import run as stages

    settings = _settings(recipe, overrides, {"seed": seed})
    folder = output or Path("runs") / settings.name
    summary = _work(lambda: stages(settings, folder=folder, fresh=fresh))
    if as_json:
        _show("Run", summary.as_dict(), as_json)
    else:
        tables.facts("Pairs", summary.rectify.as_dict())
        tables.scores(summary.eval)
        tables.stages(summary.seconds)


def _settings(recipe: Path | None, overrides: list[str] | None, options: dict[str, Any]) -> Recipe:
    from spotcli.recipe_yaml import load

    return load(recipe, overrides, options)


def _work(stage: Callable[[], T]) -> T:
    """Run a stage with stdout kept for its result: some libraries log there."""
    with redirect_stdout(sys.stderr):
        return stage()


def _show(title: str, values: dict[str, Any], as_json: bool) -> None:
    from spotcli import tables

    if as_json:
        print(json.dumps(values, ensure_ascii=False))
    else:
        tables.facts(title, values)


def main() -> None:
    """The ``spot`` command: run, and turn what the user can cure into one clear message and its exit code."""
    from spotcli.errors import SpotError, Unfinished

    try:
        app()
    except SpotError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(Unfinished("stopped; everything done so far is kept", cure="the same command goes on from here"))


def _fail(error: Any) -> None:
    from spotcli.console import show_error

    show_error(error)
    sys.exit(error.exit_code)
