"""Write what is generated from the code: docs/recipe.md, docs/cli.md and the JSON schema of a recipe.

python -m tests.reference
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer
from pydantic import BaseModel

from spotcli import plugins
from spotcli.cli import app
from spotcli.environment import variable
from spotcli.options import PANELS
from spotcli.recipe import EngineSection, EvalSection, Recipe, SampleSection, TaskSettings, flag, option_of, section
from spotcli.recipe_sections import LoraSection, PolicySection, RectifySection, TrainSection
from spotcli.training.keys import DEFAULTS
from tests.recipe_schema import recipe_schema, refused_arguments, schema_text

ROOT = Path(__file__).parent.parent
RECIPE_PAGE, CLI_PAGE = ROOT / "docs" / "recipe.md", ROOT / "docs" / "cli.md"
COMMAND = "python -m tests.reference"
MARK = f"<!-- Everything below is generated from the code by `{COMMAND}`. -->\n"
"""What a page has above this line is written by hand."""


def contents() -> dict[Path, str]:
    """Return the generated files and what they must contain, without the plug-ins of this environment."""
    with patch.object(plugins, "registered", return_value={}):
        return _contents()


def _contents() -> dict[Path, str]:
    return {
        **{page: _head(page) + MARK + text for page, text in ((RECIPE_PAGE, recipe_page()), (CLI_PAGE, cli_page()))},
        ROOT / "src" / "spotcli" / "recipe.schema.json": schema_text(),
    }


def _head(page: Path) -> str:
    """The part of a page that is written by hand."""
    return page.read_text(encoding="utf-8").partition(MARK)[0]


# docs/recipe.md

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", Recipe),
    ("sample", SampleSection),
    ("rectify", RectifySection),
    ("rectify.policy", PolicySection),
    ("train", TrainSection),
    ("train.lora", LoraSection),
    ("eval", EvalSection),
    ("eval.task_settings.NAME", TaskSettings),
)


def recipe_page() -> str:
    """Return the generated part of the page about the recipe."""
    schema = recipe_schema()
    parts = [""]
    for key, model in SECTIONS:
        title = f"`{key}`" if key else "Top level"
        shared = issubclass(model, EngineSection)
        own = [name for name in model.model_fields if not shared or name in model.__annotations__]
        text = _markdown(model.__doc__ or "") if key else "The keys of no section, and the sections."
        note = "\n\nIt has the keys of [an engine](#keys-of-an-engine) too." if shared else ""
        parts.append(f"## {title}\n\n{text}{note}\n\n{_key_table(key, model, own, schema)}")
        if model is TrainSection:
            parts.append(_training_arguments())
    engine = [name for name in EngineSection.model_fields if name in SampleSection.model_fields]
    text = "`sample`, `eval` and `rectify.policy` have these keys. A section with another default lists the key itself."
    table = _key_table("sample", SampleSection, engine, schema)
    parts.append(f"## Keys of an engine\n\n{text}\n\n{table}")
    return "\n".join(parts)


def _key_table(section_key: str, model: type[BaseModel], names: list[str], schema: dict[str, Any]) -> str:
    properties = schema["properties"] if model is Recipe else schema["$defs"][model.__name__]["properties"]
    lines = ["| Key | Value | Default | Option | Meaning |", "|---|---|---|---|---|"]
    for name in names:
        field = model.model_fields[name]
        if inner := section(model, name):
            where = f"{section_key}.{name}".lstrip(".") + (".NAME" if inner is TaskSettings else "")
            anchor = re.sub(r"[^\w-]", "", where.lower())
            text = field.description or inner.__doc__ or ""
            kind, default = f"[section](#{anchor})", "none" if field.default is None else ""
        else:
            text, kind = field.description or "", _kind(properties[name])
            default = _value(field.get_default(call_default_factory=True))
        option = option_of(field)
        given = flag(f"{section_key}.{name}".lstrip(".")).replace("argument ", "") if option else ""
        cells = [f"`{name}`", kind, default, f"`{given}`" if given else "", _markdown(text)]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _training_arguments() -> str:
    rows = "\n".join(f"| `{name}` | {_value(value)} |" for name, value in DEFAULTS.items())
    owned = "\n".join(f"| `{name}` | {_cell(reason)} |" for name, reason in refused_arguments().items())
    return f"""### TrainingArguments

Every key of transformers' `TrainingArguments` can be set under `train`. These have a default of
spot's:

| Key | Default |
|---|---|
{rows}

These keys cannot be set:

| Key | Reason, or what to use |
|---|---|
{owned}
"""


def _kind(schema: dict[str, Any]) -> str:
    """The values that a schema accepts, in words."""
    if "anyOf" in schema:
        kinds = [_kind(item) for item in schema["anyOf"]]
        if "text" in kinds:  # the names in an enumeration are suggestions
            kinds = [kind for kind in kinds if not kind.startswith("`") or kind == "`null`"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{_yaml(value)}`" for value in schema.get("enum", [schema.get("const")]))
    names = {"string": "text", "boolean": "true or false", "null": "`null`", "object": "keys and values"}
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if kind not in ("integer", "number"):
        return names.get(kind, kind)
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = []
    if low is not None and high is not None:
        bounds.append(f"{_number(low)} to {_number(high)}")
    else:
        bounds += [f"≥ {_number(low)}"] if low is not None else []
        bounds += [f"≤ {_number(high)}"] if high is not None else []
    bounds += [f"> {_number(schema['exclusiveMinimum'])}"] if "exclusiveMinimum" in schema else []
    bounds += [f"< {_number(schema['exclusiveMaximum'])}"] if "exclusiveMaximum" in schema else []
    return " ".join([kind, ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else f"2^{int(value).bit_length() - 1}"


def _yaml(value: Any) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    return words.get(str(value), str(value))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{'{}' if value == {} else _yaml(value)}`"


# docs/cli.md


def cli_page() -> str:
    """Return the generated part of the page about the commands."""
    group: Any = typer.main.get_command(app)
    names = list(group.commands)
    links = "\n".join(
        f"| [`spot {name}`](#spot-{name}) | {_cell(_markdown(_first_line(group.commands[name].help)))} |"
        for name in names
    )
    table = f"## Commands\n\n| Command | What it does |\n|---|---|\n{links}\n"
    own = _option_table(typer.Context(group), group.get_params(typer.Context(group)), "spot")
    parts = ["", table, f"### Options of `spot` itself\n\n{own}"]
    parts += [_command(name, group.commands[name]) for name in names]
    return "\n".join(parts)


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _command(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"spot {name}")
    params = command.get_params(context)
    words = [
        param.metavar if param.required else f"[{param.metavar}]"
        for param in params
        if param.param_type_name == "argument"
    ]
    parts = [
        f"## spot {name}\n",
        _markdown(command.help or ""),
        "",
        f"    spot {' '.join([name, '[OPTIONS]', *words])}\n",
    ]
    for panel in PANELS:
        shown = [param for param in params if (getattr(param, "rich_help_panel", None) or PANELS[0]) == panel]
        if shown:
            parts.append(f"**{panel}**\n\n{_option_table(context, shown, name)}")
    parts.append(f"**Examples**\n\n{_examples(command.epilog or '')}")
    return "\n".join(parts)


def _option_table(context: Any, params: list[Any], command: str) -> str:
    lines = ["| Option | Variable | Meaning |", "|---|---|---|"]
    for param in params:
        if param.param_type_name == "argument":
            shown = f"`{param.metavar}`"
        else:
            names = ", ".join([*param.opts, *param.secondary_opts])
            placeholder = "" if param.is_flag else f" {param.metavar or 'VALUE'}"
            shown = f"`{names}{placeholder}`"
        name = variable(command, param) if command != "spot" else None
        facts = [f"{param.min:g} to {param.max:g}"] if getattr(param, "max", None) is not None else []
        default = param.get_default(context, call=False)
        if param.show_default and default not in (None, False, ()):
            facts.append(f"default: {default}")
        text = re.sub(r"\\\[", "[", param.help or "") + (f" [{'; '.join(facts)}]" if facts else "")
        cells = [shown, f"`{name}`" if name else "", _markdown(text)]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _examples(epilog: str) -> str:
    """The examples of a command: commands as code, the sentences above them as text."""
    lines: list[str] = []
    was_code = False
    for line in epilog.splitlines():
        is_code = "[cyan]" in line
        if line.strip():
            if lines and is_code != was_code:
                lines.append("")
            command = line.replace("[cyan]", "").replace("[/cyan]", "").strip()
            lines.append(f"    {command}" if is_code else line)
            was_code = is_code
    return "\n".join(lines) + "\n"


# Both


def _markdown(text: str) -> str:
    """A docstring or a help text on one line per paragraph, with code in single backticks."""
    paragraphs = (" ".join(part.split()) for part in text.replace("``", "`").split("\n\n"))
    return "\n\n".join(part for part in paragraphs if part)


def _cell(text: str) -> str:
    """A text for the cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def stale() -> Iterator[Path]:
    """Yield the generated files that are not up to date."""
    for path, content in contents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            yield path


def main() -> None:
    for path in list(stale()):
        path.write_text(contents()[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
