"""The commands' options, derived from the fields of the recipe.

A field that is declared with ``recipe.Option`` becomes an option: name, type, choices, help text and default come from
the field, and its bounds are checked when the recipe is loaded. The recipe is imported when a command parses its
arguments, shows its help or completes a word, so ``spot --help`` stays quick.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from spotcli import environment, flags

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from spotcli.recipe import Option
    from spotcli.recipe_yaml import Environment

F = TypeVar("F", bound=Callable[..., None])

PANELS = (
    *(
        "Arguments",
        "Recipe",
        "Input and output",
        "Model",
        "Sampling",
        "Engine",
        "Oracle",
        "Policy",
        "Prompt",
        "Pairs",
        "Money",
        "Requests",
        "Batches",
    ),
    *("Evaluation", "By hand", "Estimate", "Run"),
)
"""Headings in the help, in their order; options without a heading are shown under the last one."""

PLACEHOLDERS: dict[type, str] = {int: "N", float: "X", str: "TEXT"}

COMPLETED = {
    "problems": "problems",
    "samples": "rows",
    "model": "model",
    "tokenizer": "model",
    "oracle": "oracle",
    "then": "oracle",
    "tasks": "task",
}
"""Recipe key -> the kind of values that the shell completes."""


class Given(dict[str, Any]):
    """Recipe keys given as options: dotted key -> value."""

    def __init__(self, values: Mapping[str, Any] | None = None, environment: Environment | None = None) -> None:
        super().__init__(values or {})
        self.environment = environment
        """Which of them environment variables gave."""


class Group(TyperGroup):
    """The ``spot`` command; its help has no type column for flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_without_type(param) for param in super().get_params(ctx)]

    def _main_shell_completion(self, *arguments: Any, **more: Any) -> None:
        if os.environ.get("_SPOT_COMPLETE"):
            from spotcli import completion

            completion.install_bash()
        super()._main_shell_completion(*arguments, **more)


class Command(TyperCommand):
    """A command with ``-v`` and ``-q``, environment variables, and every option under a heading in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        *own, help_option = super().get_params(ctx)
        common = map(copy, _verbosity_options())  # each command has variables of its own
        params = [_without_type(param) for param in (*own, *common, help_option)]
        for param in params:
            environment.add_variable(self.name or "", param)
            if isinstance(param, TyperOption) and param.rich_help_panel is None:
                param.rich_help_panel = PANELS[-1]
        return sorted(params, key=lambda param: PANELS.index(param.rich_help_panel or PANELS[0]))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with environment.named_in_errors(ctx):
            rest = super().parse_args(ctx, args)
        _set_verbosity(ctx, verbose=ctx.params.pop("verbose"), quiet=ctx.params.pop("quiet"))
        if not ctx.resilient_parsing:
            from spotcli.console import warn

            for name, near in environment.unknown_variables(self.name or "", self.get_params(ctx)).items():
                cure = f"; did you mean {near}?" if near else ""
                warn(f"{name} is set, but spot {self.name} has no such option{cure}")
        return rest


@cache
def _verbosity_options() -> tuple[Any, ...]:
    """The options ``-v`` and ``-q``."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def options(verbose: flags.Verbose = False, quiet: flags.Quiet = False) -> None: ...

    return tuple(typer.main.get_command(app).params)


def _set_verbosity(ctx: Any, *, verbose: bool, quiet: bool) -> None:
    """Set how much the console prints; an option on the command line precedes the variable of the other one.

    Raises:
        BadParameter: both options are given in the same way.
    """
    from spotcli.console import set_verbosity

    if ctx.resilient_parsing:
        return
    if verbose and quiet:
        sources = {name: ctx.get_parameter_source(name).name for name in ("verbose", "quiet")}
        if sources["verbose"] == sources["quiet"]:
            raise typer.BadParameter("--verbose and --quiet are mutually exclusive.", ctx=ctx)
        verbose = sources["verbose"] == "COMMANDLINE"
    set_verbosity("verbose" if verbose else "quiet" if quiet else "normal")


class RecipeCommand(Command):
    """A command that builds the options for its recipe keys when they are first needed."""

    function: ClassVar[Callable[..., None]]
    keys: ClassVar[tuple[str, ...]]
    _built = False

    def get_params(self, ctx: Any) -> list[Any]:
        if not self._built:
            app = typer.Typer(add_completion=False)
            app.command()(_with_recipe_options(type(self).function, self.keys))
            command = typer.main.get_command(app)
            self.params, self.callback, self._built = command.params, command.callback, True
        return super().get_params(ctx)


def recipe_command(app: typer.Typer, *keys: str, name: str | None = None, epilog: str) -> Callable[[F], F]:
    """Register a function as a command that has options for recipe keys, besides those in its signature.

    The function's first parameter receives the values given on the command line (dotted key -> value).

    Args:
        app: the application.
        keys: keys of the recipe; a section means all of its fields that are declared as options.
        name: the command's name; by default the function's.
        epilog: examples, shown below the help.
    """

    def register(function: F) -> F:
        kind = type("_RecipeCommand", (RecipeCommand,), {"function": staticmethod(function), "keys": keys})

        def placeholder() -> None:
            """Replaced by the function, with all of its options, in ``RecipeCommand.get_params``."""

        app.command(name or function.__name__, cls=kind, epilog=epilog, help=inspect.getdoc(function))(placeholder)
        return function

    return register


def _with_recipe_options(function: Callable[..., None], keys: tuple[str, ...]) -> Callable[..., None]:
    """Return the function with its first parameter replaced by one parameter per recipe key."""
    from spotcli import recipe

    fields = {key: field for part in keys for key, field in recipe.options(part).items()}
    keys_by_name = {key.rpartition(".")[2]: key for key in fields}

    def call(context: typer.Context, **values: Any) -> None:
        given = {key: value for name, key in keys_by_name.items() if (value := values.pop(name)) is not None}
        function(Given(given, _environment(context, keys_by_name, values)), **values)

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *(_parameter(name, fields[key]) for name, key in keys_by_name.items())]
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    # Keyword-only parameters may stand in any order, whether they have a default or not.
    parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _environment(context: typer.Context, keys: dict[str, str], values: dict[str, Any]) -> Environment:
    """Return what environment variables set; overrides in one are kept beside those on the command line.

    Args:
        context: of the command.
        keys: parameter -> dotted key.
        values: values of the other parameters; overrides of a variable are removed.
    """
    from spotcli.recipe_yaml import Environment

    params = {param.name: param for param in context.command.get_params(context)}
    variables = {key: source for name, key in keys.items() if (source := environment.source_of(context, params[name]))}
    overrides = environment.values_of(params["overrides"])
    if environment.source_of(context, params["overrides"]):
        values["overrides"] = None
    return Environment(variables, overrides, str(params["overrides"].envvar))


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return a field as a parameter that Typer reads; None means that the option is not given."""
    from spotcli.recipe import option_of

    option = option_of(field)
    assert option is not None
    kind = _kind(field.annotation) if option.choices is None else Literal[tuple(option.choices())]
    text = help_text(field, option)
    complete = flags.completed(COMPLETED[name]) if name in COMPLETED else None
    info: Any
    if option.argument:
        info = typer.Argument(help=text, metavar=name.upper(), show_default=False, autocompletion=complete)
    else:
        info = typer.Option(
            *_flags(name, field, option),
            help=text,
            metavar=_placeholder(kind, option),
            parser=_number_or_none(kind) if _can_be_unset(field) else None,
            show_default=False,
            rich_help_panel=option.panel,
            autocompletion=complete,
        )
    annotation = Annotated[kind | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def help_text(field: FieldInfo, option: Option) -> str:
    """Return the help of an option as Rich markup: first paragraph of the docstring, choices, bounds, default."""
    text = " ".join((field.description or "").partition("\n\n")[0].split()).replace("``", "")
    kind = _kind(field.annotation) if option.choices is None else Literal[tuple(option.choices())]
    facts = []
    if get_origin(kind) is Literal and not all(f"{choice}:" in text for choice in get_args(kind)):
        facts.append(", ".join(get_args(kind)))
    facts += _bounds(field)
    default = field.get_default(call_default_factory=True)
    if default is True:
        facts.append("default: yes")
    elif default is not False:
        shown = ", ".join(default) if isinstance(default, list) else default
        facts.append(f"default: {option.unset if shown in (None, '') else shown}")
    return (f"{text} [{'; '.join(facts)}]" if facts else text).replace("[", "\\[")


def _bounds(field: FieldInfo) -> list[str]:
    """Return the range of a field with an upper bound; that counts and amounts are not negative is obvious."""
    bounds = {name: getattr(item, name) for item in field.metadata for name in ("ge", "le") if hasattr(item, name)}
    if "le" not in bounds:
        return []
    return [f"{bounds['ge']} to {bounds['le']}" if "ge" in bounds else f"at most {bounds['le']}"]


def _kind(annotation: Any) -> Any:
    """Return the type of a field's value without bounds and without None."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    inner = [item for item in get_args(annotation) if item is not type(None)]
    return _kind(inner[0]) if len(inner) == 1 and get_origin(annotation) is not list else annotation


def _can_be_unset(field: FieldInfo) -> bool:
    """Whether None is a value of the field other than its default, so that it needs a word as an option."""
    return type(None) in get_args(field.annotation) and field.default is not None


def _number_or_none(kind: Any) -> Callable[[str], Any]:
    from spotcli.recipe import UNSET

    def parse(text: str) -> Any:
        if text.lower() in UNSET:
            return UNSET[0]
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"'{text}' is neither a number nor '{UNSET[0]}'.") from None

    return parse


def _flags(name: str, field: FieldInfo, option: Option) -> list[str]:
    flag = option.flag or f"--{name.replace('_', '-')}"
    if field.default is True:
        flag += f"/--no-{name.replace('_', '-')}"
    return [flag, option.short] if option.short else [flag]


def _placeholder(kind: Any, option: Option) -> str | None:
    if kind is bool:
        return None
    return option.placeholder or PLACEHOLDERS.get(kind, "NAME")


def _without_type(param: Any) -> Any:
    """Remove the type column of a flag from the help; it leaves more room for the text."""
    if isinstance(param, TyperOption) and param.is_flag and param.metavar is None:
        param.metavar = ""
    return param
