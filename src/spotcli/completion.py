"""Values that the shell completes: names, recipe keys, models and files.

Nothing here imports the recipe or a provider's package: names come from the JSON schema of a recipe and from litellm's
table of models, which are files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROWS = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".gz")
RECIPES = (".yaml", ".yml")
TEMPLATES = ("demo", "lora", "full", "api", "own-problems", "reproduce")
MODELS = ("builtin:smollm2-135m",)
SETS = ("builtin:arithmetic", "hf:")
MOST = 200
"""Models of litellm's table that are offered at most."""


def values(kind: str, incomplete: str) -> list[str]:
    """Return the values of a kind that begin with what was typed.

    Args:
        kind: a name in ``KINDS``.
        incomplete: what was typed.
    """
    names = dict.fromkeys(name for name in KINDS[kind](incomplete) if name and name.startswith(incomplete))
    return [name for name in names if name.isprintable()]


def _rows(incomplete: str) -> list[str]:
    return _files(incomplete, ROWS)


def _recipes(incomplete: str) -> list[str]:
    return _files(incomplete, RECIPES)


def _models(incomplete: str) -> list[str]:
    return [*MODELS, *_files(incomplete, (), holding=("config.json", "adapter_config.json"))]


def _problems(incomplete: str) -> list[str]:
    return [*SETS, *_files(incomplete, ROWS)]


def _tasks(incomplete: str) -> list[str]:
    names = _section("EvalSection")["tasks"]["items"]["anyOf"][0]["enum"]
    return [*names, *_plugins("tasks"), *_files(incomplete, (*ROWS, *RECIPES))]


def _oracles(incomplete: str) -> list[str]:
    names = [*_section("RectifySection")["oracle"]["anyOf"][0]["enum"], *_plugins("oracles")]
    return [*names, *(_provider_models(incomplete) if incomplete else [])]


def _templates(_incomplete: str) -> tuple[str, ...]:
    return TEMPLATES


def _overrides(incomplete: str) -> Iterator[str]:
    """``KEY=VALUE`` for the keys of a recipe; for a single key, all values of an enumeration, or the default.

    A second candidate keeps the shell from putting a space after ``KEY=``.
    """
    typed, equals, _ = incomplete.partition("=")
    keys = dict(_keys(_schema()["properties"], ""))
    matching = [typed] if equals else [key for key in keys if key.startswith(typed)]
    yield from ("" if equals else f"{key}=" for key in matching)
    if len(matching) == 1 and (schema := keys.get(matching[0])) is not None:
        choices = [choice for part in (schema, *schema.get("anyOf", ())) for choice in part.get("enum", ())]
        if schema.get("type") == "boolean":
            choices = [True, False]
        shown = choices or [value for value in (schema.get("default"),) if value not in (None, [], {})]
        yield from (f"{matching[0]}={_yaml(value)}" for value in shown)


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


KINDS: dict[str, Callable[[str], Any]] = {
    "rows": _rows,
    "recipe": _recipes,
    "model": _models,
    "problems": _problems,
    "task": _tasks,
    "oracle": _oracles,
    "template": _templates,
    "override": _overrides,
}
"""Kind of value -> the candidates."""


def _keys(properties: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key with a value, dotted, with its schema."""
    for name, schema in properties.items():
        inner = next((part["$ref"] for part in (schema, *schema.get("anyOf", ())) if "$ref" in part), None)
        if inner is not None:
            yield from _keys(_section(inner.rpartition("/")[2]), f"{prefix}{name}.")
        elif "not" not in schema:
            yield f"{prefix}{name}", schema


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("recipe.schema.json").read_text(encoding="utf-8"))
    return schema


def _section(name: str) -> dict[str, Any]:
    keys: dict[str, Any] = _schema()["$defs"][name]["properties"]
    return keys


def _plugins(kind: str) -> list[str]:
    from importlib.metadata import entry_points

    return [entry.name for entry in entry_points(group=f"spotcli.{kind}")]


def _provider_models(incomplete: str) -> list[str]:
    """Chat models of litellm's table; empty if the package has no such file."""
    try:
        package = find_spec("litellm")
        folder = Path(next(iter(package.submodule_search_locations or ()))) if package else Path()
        table = json.loads((folder / "model_prices_and_context_window_backup.json").read_text(encoding="utf-8"))
        names = [name for name, facts in table.items() if name.startswith(incomplete) and facts.get("mode") == "chat"]
    except (OSError, ValueError, AttributeError, StopIteration):
        return []
    return names[:MOST]


def _files(incomplete: str, endings: tuple[str, ...], *, holding: tuple[str, ...] = ()) -> list[str]:
    """Files with one of the endings, or folders that have one of the files, and folders on the way to them.

    A shell puts a space after the only candidate, so a folder is replaced by what it contains.
    """
    start = incomplete.rpartition("/")[2]
    prefix = incomplete[: len(incomplete) - len(start)]
    place = Path(prefix or ".").expanduser()
    for _ in range(20):
        found = list(_entries(place, start, endings, holding))
        if len(found) != 1 or not found[0].endswith("/"):
            return [f"{prefix}{name}" for name in found]
        prefix, place, start = f"{prefix}{found[0]}", place / found[0], ""
    return []


def _entries(place: Path, start: str, endings: tuple[str, ...], holding: tuple[str, ...]) -> Iterator[str]:
    try:
        entries = sorted(place.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if not entry.is_dir():
            if entry.suffix.lower() in endings:
                yield entry.name
        elif any((entry / name).is_file() for name in holding):
            yield entry.name
        else:
            yield f"{entry.name}/"


def install_bash() -> None:
    """Replace Typer's completion for bash by one that knows where bash ends a word: at ``:`` and ``=`` too.

    Bash replaces only the part after them, so a candidate must not repeat what comes before. With a version of Typer
    that has another structure, its own completion remains.
    """
    try:
        from typer._click.shell_completion import add_completion_class, split_arg_string
        from typer._completion_classes import BashComplete
    except ImportError:
        return
    import os

    class Bash(BashComplete):
        def get_completion_args(self) -> tuple[list[str], str]:
            raw, at = split_arg_string(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
            words = joined(raw[: at + 1] if at < len(raw) else [*raw, ""])
            current = raw[at] if at < len(raw) and raw[at].strip(":=") else ""
            option, equals, value = words[-1].partition("=")
            typed = value if equals and option.startswith("-") else words[-1]
            self.kept = len(typed) - len(current)
            return words[1:-1], words[-1]

        def format_completion(self, item: Any) -> str:
            rest = str(item.value)[self.kept :]
            return re.sub(r"([\s\"'\\$`&|;()<>*?!#])", r"\\\1", rest)

    add_completion_class(Bash, "bash")


def joined(raw: list[str]) -> list[str]:
    """Join the words that bash splits at ``:`` and ``=``, except where the separator begins a word of its own."""
    words: list[str] = []
    for index, word in enumerate(raw):
        separator = bool(word) and not word.strip(":=")
        after = index > 0 and bool(raw[index - 1]) and not raw[index - 1].strip(":=")
        if words and index > 1 and (separator or after):
            words[-1] += word
        else:
            words.append(word)
    return words
