"""A recipe as YAML: read and overridden with the line of every value, checked, and written with its sources."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from spotcli.errors import RecipeError
from spotcli.recipe import Recipe, flag, known_keys, section, suggest
from spotcli.redaction import public_value, without_credentials


def load(path: Path | None, overrides: list[str] | None = None, options: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe, apply ``-s key=value`` and then the command's options, and check the result.

    Args:
        path: the YAML file, or None for the defaults.
        overrides: ``section.key=value``; the value is read as YAML.
        options: dotted key -> value of the command's options; None means that the option is not given.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown (with the nearest name), or a value is invalid.
    """
    values, sources = _read(path) if path else ({}, {})
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError("invalid override: expected KEY=VALUE", where=f"-s {text}")
        _set(values, sources, key.strip(), _parse(value, f"-s {text}"), f"-s {text}")
    for key, value in (options or {}).items():
        if value is not None:
            _set(values, sources, key, value, flag(key))
    # A section whose keys are all commented out is null in YAML.
    values = {key: value for key, value in values.items() if value is not None or not section(Recipe, key)}
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _recipe_error(error, sources) from None
    recipe._sources.update(sources)
    return recipe


def _recipe_error(error: ValidationError, sources: dict[str, str]) -> RecipeError:
    """Return the first error of a validation with the source of the value that caused it."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = _dotted(first["loc"])
    parent, _, name = key.rpartition(".")
    where = _origin(key, sources)
    if first["type"] == "extra_forbidden":
        return RecipeError("unknown key", where=where, cure=suggest(name, known_keys(parent)))
    if first["type"] == "model_type":
        return RecipeError("expected a section of keys, got a value", where=where)
    value = repr(first["input"])
    value = value if len(value) <= 80 else f"{value[:80]}..."
    return RecipeError(f"{first['msg'][:1].lower()}{first['msg'][1:]}, got {value}", where=where)


@contextmanager
def located(recipe: Recipe) -> Iterator[None]:
    """Give each error about a key of a recipe the place where the key got its value."""
    try:
        yield
    except RecipeError as error:
        if error.where is not None:
            error.where = _origin(error.where, recipe.sources)
        raise


def _origin(key: str, sources: dict[str, str]) -> str:
    """Return where a key, or else the nearest section around it or a key in it, got its value."""
    given = key
    while given and given not in sources:
        given = given.rpartition(".")[0]
    given = given or next((inner for inner in sources if inner.startswith(f"{key}.")), "")
    if not given:
        return key
    source = sources[given]
    # An override or an option already names its key.
    return source if source.startswith(("-", "argument ")) else f"{source}: {key}"


def _dotted(location: tuple[int | str, ...]) -> str:
    """Return the dotted key of an error's location, without the parts that unions and lists append to it."""
    parts: list[str] = []
    model: type[BaseModel] | None = Recipe
    for part in location:
        if model is None or isinstance(part, int):
            break
        parts.append(part)
        model = section(model, part)
    return ".".join(parts)


def dump(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that loads again; a comment after each value names its source.

    Secrets are left out: keys in ``params`` become digests, and addresses lose their passwords.
    """
    values = recipe.model_dump(mode="json")
    for part in ("sample", "rectify"):
        values[part]["params"] = public_value(values[part]["params"])
        values[part]["base_url"] = without_credentials(values[part]["base_url"])
    sources = {key: _public_source(source) for key, source in recipe.sources.items()}
    return "".join(_dump_section(values, sources, "", 0))


def _public_source(source: str) -> str:
    """The source of a value without the value itself, where that may be secret."""
    key, equals, _ = source.partition("=")
    return key if equals and re.search(r"params|base_url", key) else source


def _dump_section(values: dict[str, Any], sources: dict[str, str], prefix: str, depth: int) -> Iterator[str]:
    import yaml

    for key, value in values.items():
        dotted = f"{prefix}{key}"
        # PyYAML writes line separators unescaped, and reads them as line ends.
        printable = json.dumps([key, value], ensure_ascii=False).isprintable()
        text = yaml.safe_dump({key: value}, allow_unicode=printable, width=math.inf, sort_keys=False)
        head, rest = text.split("\n", 1)
        if isinstance(value, dict) and value and all(map(_is_plain, (key, *value))):
            yield _indented(depth, f"{head}\n")
            yield from _dump_section(value, sources, f"{dotted}.", depth + 1)
            continue
        # In a text of several lines a comment would become part of the text.
        if not rest or isinstance(value, list):
            head += f"  # {' '.join(sources.get(dotted, 'default').split())}"
        yield _indented(depth, f"{head}\n{rest}")


def _is_plain(key: str) -> bool:
    return re.fullmatch(r"[\w.-]+", key) is not None


def _indented(depth: int, text: str) -> str:
    return "".join(f"{'  ' * depth}{line}" for line in text.splitlines(keepends=True))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a recipe file and the line of each key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError("recipe not found", where=str(path), cure="recipes/ contains examples") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise RecipeError("not a text file", where=str(path)) from None
    values = _parse(text, str(path))
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise RecipeError(f"expected a mapping of keys to values, got a {type(values).__name__}", where=str(path))
    return values, _key_lines(text, path)


def _key_lines(text: str, path: Path) -> dict[str, str]:
    """Return dotted key -> ``FILE:LINE``.

    Raises:
        RecipeError: a key is duplicate; YAML would silently take the last one.
    """
    import yaml

    places: dict[str, str] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        first_lines: dict[str, int] = {}
        for name, value in node.value:
            if name.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    walk(merged, prefix)
                continue
            key, line = f"{prefix}{name.value}", name.start_mark.line + 1
            if key in first_lines:
                message = f"duplicate key (first in line {first_lines[key]})"
                raise RecipeError(message, where=f"{path}:{line}: {key}", cure="remove one of the two lines")
            first_lines[key] = line
            places[key] = f"{path}:{line}"
            walk(value, f"{key}.")

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return places


def _parse(text: str, where: str) -> Any:
    import yaml

    try:
        return _with_floats(yaml.safe_load(text))
    except RecursionError:
        raise RecipeError("nested too deeply", where=where) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark and not where.startswith("-s ") else where
        raise RecipeError(f"invalid YAML ({getattr(error, 'problem', None) or 'unreadable'})", where=place) from None


def _with_floats(value: Any) -> Any:
    """Convert strings such as ``5e-5``, the usual form of a learning rate, which YAML 1.1 does not read as a number."""
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return value


def _set(values: dict[str, Any], sources: dict[str, str], dotted: str, value: Any, source: str) -> None:
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
    _record(sources, dotted, value, source)


def _record(sources: dict[str, str], dotted: str, value: Any, source: str) -> None:
    sources[dotted] = source
    if isinstance(value, dict):
        for key, item in value.items():
            _record(sources, f"{dotted}.{key}", item, source)
