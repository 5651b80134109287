"""TODO."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from spotcli.errors import RecipeError
from spotcli.recipe import Recipe, _section, known_keys, suggest


def load(path: Path | None, overrides: list[str] | None = None, options: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe, lay ``-s key=value`` and the command's options over it, check it.

    Args:
        path: the YAML file, or None for the defaults alone.
        overrides: ``section.key=value``, the value read as YAML.
        options: dotted key -> value, of the command's own options; None means not given.

    Raises:
        RecipeError: no such file, not YAML, an unknown key (with the nearest name), a value that does not fit.
    """
    values, sources = _read(path) if path else ({}, {})
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError("an override has the form key=value", where=f"-s {text}")
        _put(values, sources, key.strip(), _yaml(value, f"-s {text}"), f"-s {text}")
    for key, value in (options or {}).items():
        if value is not None:
            _put(values, sources, key, value, f"--{key.rpartition('.')[2].replace('_', '-')}")
    # A section whose keys are all commented out is null in YAML.
    values = {key: value for key, value in values.items() if value is not None or not _section(Recipe, key)}
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _misfit(error, sources) from None
    recipe._sources.update(sources)
    return recipe


def _misfit(error: ValidationError, sources: dict[str, str]) -> RecipeError:
    first = error.errors(include_url=False, include_context=False)[0]
    key = _key(first["loc"])
    section, _, name = key.rpartition(".")
    place = given = key
    while given and given not in sources:
        given = given.rpartition(".")[0]
    given = given or next((one for one in sources if one.startswith(f"{key}.")), "")
    if given:
        source = sources[given]
        # An override names its key itself.
        place = source if source.startswith("-") else f"{source}: {key}"
    if first["type"] == "extra_forbidden":
        return RecipeError("unknown key", where=place, cure=suggest(name, known_keys(section)))
    if first["type"] == "model_type":
        return RecipeError("this is a section of keys, not a value", where=place)
    value = repr(first["input"])
    value = value if len(value) <= 80 else f"{value[:80]}..."
    return RecipeError(f"{first['msg'][:1].lower()}{first['msg'][1:]} (it is {value})", where=place)


def _key(loc: tuple[int | str, ...]) -> str:
    """The dotted key of an error's place, without what unions and lists append to it."""
    parts: list[str] = []
    model: type[BaseModel] | None = Recipe
    for part in loc:
        if model is None or isinstance(part, int):
            break
        parts.append(part)
        model = _section(model, part)
    return ".".join(parts)


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML that loads again, each value with a comment that says where it came from."""
    return "".join(_dump_section(recipe.model_dump(mode="json"), recipe.sources, "", 0))


def _dump_section(values: dict[str, Any], sources: dict[str, str], prefix: str, depth: int) -> Iterator[str]:
    import yaml

    for key, value in values.items():
        dotted = f"{prefix}{key}"
        # PyYAML writes line separators as they are, and reads them as line ends.
        printable = json.dumps([key, value], ensure_ascii=False).isprintable()
        text = yaml.safe_dump({key: value}, allow_unicode=printable, width=math.inf, sort_keys=False)
        head, rest = text.split("\n", 1)
        if isinstance(value, dict) and value and all(map(_plain, (key, *value))):
            yield _indented(depth, f"{head}\n")
            yield from _dump_section(value, sources, f"{dotted}.", depth + 1)
            continue
        # In a text of several lines a comment would become part of it.
        if not rest or isinstance(value, list):
            head += f"  # {' '.join(sources.get(dotted, 'default').split())}"
        yield _indented(depth, f"{head}\n{rest}")


def _plain(key: str) -> bool:
    return re.fullmatch(r"[\w.-]+", key) is not None


def _indented(depth: int, text: str) -> str:
    return "".join(f"{'  ' * depth}{line}" for line in text.splitlines(keepends=True))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a recipe, and the line of each key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            "there is no such recipe", where=str(path), cure="recipes/ holds some to start from"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise RecipeError("this is not a text file", where=str(path)) from None
    values = _yaml(text, str(path))
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=str(path))
    return values, _lines(text, path)


def _lines(text: str, path: Path) -> dict[str, str]:
    """Dotted key -> ``FILE:LINE``.

    Raises:
        RecipeError: a key stands there twice; YAML would take the last one in silence.
    """
    import yaml

    found: dict[str, str] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        here: set[str] = set()
        for name, value in node.value:
            if name.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    walk(merged, prefix)
                continue
            key, place = f"{prefix}{name.value}", f"{path}:{name.start_mark.line + 1}"
            if key in here:
                raise RecipeError("the key stands here twice", where=f"{place}: {key}", cure="remove one of the two")
            here.add(key)
            found[key] = place
            walk(value, f"{key}.")

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found


def _yaml(text: str, where: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
        return _number(value) if isinstance(value, str) else _numbers(value)
    except RecursionError:
        raise RecipeError("nested too deeply", where=where) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark and not where.startswith("-s ") else where
        raise RecipeError(f"not YAML ({getattr(error, 'problem', None) or 'unreadable'})", where=place) from None


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads ``5e-5``, which everybody writes for a learning rate, as a string."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _number(value)


def _number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return value


def _put(values: dict[str, Any], sources: dict[str, str], dotted: str, value: Any, source: str) -> None:
    *path, last = dotted.split(".")
    for part in path:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise RecipeError(f"'{part}' is a value, not a section", where=source)
    values[last] = value
    for key in [key for key in sources if key.startswith(f"{dotted}.")]:
        del sources[key]
    _remember(sources, dotted, value, source)


def _remember(sources: dict[str, str], dotted: str, value: Any, source: str) -> None:
    sources[dotted] = source
    if isinstance(value, dict):
        for key, item in value.items():
            _remember(sources, f"{dotted}.{key}", item, source)
