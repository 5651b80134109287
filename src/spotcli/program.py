"""The program ``spot`` and what its commands share: reading a recipe, running a stage, showing its summary."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from spotcli import flags
from spotcli.options import Given, Group

if TYPE_CHECKING:
    from spotcli.recipe import Recipe

T = TypeVar("T")

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


def load_recipe(recipe: Path | None, overrides: list[str] | None, given: Given) -> Recipe:
    """The recipe with the options of a command; with ``-v``, where each value comes from."""
    from spotcli.console import detail
    from spotcli.recipe_yaml import load, public_sources

    settings = load(recipe, overrides, given, given.environment)
    sources = public_sources(settings)
    for key, source in sources.items():
        if not any(inner.startswith(f"{key}.") for inner in sources):
            detail(f"{key}: {source}")
    return settings


def work(stage: Callable[[], T]) -> T:
    """Run a stage with stdout reserved for its result: some libraries log to stdout.

    Raises:
        UserError: a full disk, a read-only folder or another reason why files cannot be written.
        Unfinished: Ctrl-C, SIGTERM, or a closed terminal.
    """
    from spotcli.errors import Unfinished
    from spotcli.interrupts import broke_import

    interrupted = Unfinished("interrupted; finished work is saved", cure="run the same command again to resume")
    with redirect_stdout(sys.stderr):
        try:
            return reported(stage)
        except KeyboardInterrupt:
            raise interrupted from None
        except Exception as error:
            if broke_import(error):
                raise interrupted from None
            raise


def reported(stage: Callable[[], T]) -> T:
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


def show_summary(title: str, values: dict[str, Any], as_json: bool) -> None:
    """Print a summary: as a table, or as one JSON object."""
    from spotcli import tables

    if as_json:
        tables.as_json(values)
    else:
        tables.facts(title, values)
