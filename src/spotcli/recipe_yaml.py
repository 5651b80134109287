"""A recipe as YAML: read and overridden with the line of every value, checked, and written with its sources."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spotcli import files
from spotcli.dataset_lines import close_name, utf16_or_32
from spotcli.errors import RecipeError
from spotcli.recipe import Recipe, flag, keys_at, section, suggest, walk
from spotcli.records import Row, kind_of
from spotcli.redaction import may_have_secret, public_value, without_credentials
from spotcli.yaml_nodes import compose, construct, key_lines

MAX_BYTES = 1_000_000
"""Bytes of a recipe file; a larger file is something else."""
DATASETS = (".jsonl", ".parquet", ".csv", ".tsv", ".gz")
"""Endings of files that are no recipes."""
DATASET_CURE = "name the dataset in the recipe (train.data, rectify.samples, sample.problems)"


@dataclass(frozen=True)
class Environment:
    """What environment variables set, which the command line precedes."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Dotted key of an option -> the variable that gave its value."""
    overrides: Sequence[str] = ()
    """``section.key=value``, as with ``-s``."""
    overrides_variable: str = ""


def load(
    path: Path | None,
    overrides: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    environment: Environment | None = None,
) -> Recipe:
    """Read a recipe, apply environment variables, ``-s key=value`` and the command's options, and check the result.

    Args:
        path: the YAML file, or None for the defaults.
        overrides: ``section.key=value``; the value is read as YAML.
        options: dotted key -> value of the command's options; None means that the option is not given.
        environment: which of the options environment variables gave, and their overrides.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown (with the nearest name), or a value is invalid.
    """
    values, sources = _read(path) if path else ({}, {})
    given = {key: value for key, value in (options or {}).items() if value is not None}
    environment = environment or Environment()
    for text in environment.overrides:
        _override(values, sources, text, f"${environment.overrides_variable}")
    for key in [key for key in given if key in environment.variables]:
        _set(values, sources, key, given.pop(key), f"${environment.variables[key]}")
    for text in overrides or []:
        _override(values, sources, text, "-s")
    for key, value in given.items():
        _set(values, sources, key, value, flag(key))
    return _checked(values, sources)


def with_values(
    base: Recipe | Mapping[str, Any] | Path | None, given: Mapping[str, Any], source: Callable[[str], str]
) -> Recipe:
    """A recipe with other values; the base is not changed.

    Args:
        base: a recipe, its values, its YAML file, or None for the defaults.
        given: dotted key -> value; None is a value.
        source: where the value of a key comes from, for messages.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown (with the nearest name), or a value is invalid.
    """
    values: dict[str, Any]
    sources: dict[str, str]
    if isinstance(base, Mapping):
        values, sources = deepcopy(dict(base)), {}
    else:
        recipe = base if isinstance(base, Recipe) else load(base)
        # A section that was not in the file can have keys that were assigned since.
        values = _merged(recipe.model_dump(exclude_unset=True), recipe.model_dump(exclude_defaults=True))
        sources = dict(recipe.sources)
    for key, value in given.items():
        _set(values, sources, key, value, source(key))
    return _checked(values, sources)


def _merged(values: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings as one, and so for each mapping in them."""
    for key, value in more.items():
        inner = values.get(key)
        values[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return values


def _checked(values: dict[str, Any], sources: dict[str, str]) -> Recipe:
    """The recipe with these values.

    Raises:
        RecipeError: a key is unknown, or a value is invalid.
    """
    # A section whose keys are all commented out is null in YAML.
    values = {key: value for key, value in values.items() if value is not None or not section(Recipe, key)}
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _recipe_error(error, sources) from None
    recipe._sources.update(sources)
    for key, number in _numbers(recipe.model_dump()):
        if not math.isfinite(number) or abs(number) > MAX_NUMBER:
            raise RecipeError(
                "the number is too large", where=_origin(key, sources), cure="use a finite number below 2^63"
            )
    return recipe


def _override(values: dict[str, Any], sources: dict[str, str], text: str, word: str) -> None:
    """Apply ``section.key=value``.

    Args:
        values: changed.
        sources: changed.
        text: the override.
        word: ``-s``, or ``$`` and an environment variable.

    Raises:
        RecipeError: it has no key or no value, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    source = f"{word} {text}" if len(text) <= 200 else f"{word} {text[:200]}..."
    if not equals or not key.strip():
        raise RecipeError("invalid override: expected KEY=VALUE", where=_public_source(source))
    _set(values, sources, key.strip(), _parse(value, _public_source(source)), source)


MAX_NUMBER = 2**63 - 1
"""The largest number of a recipe: libraries count in 64 bits."""


def _numbers(values: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number in a value, with its dotted key."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for value in values:
            yield from _numbers(value, key)
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield key, values


def _recipe_error(error: ValidationError, sources: dict[str, str]) -> RecipeError:
    """Return the first error of a validation with the source of the value that caused it."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = _dotted(first["loc"])
    where = _origin(key, sources)
    if first["type"] == "extra_forbidden":
        *parents, name = map(str, first["loc"])
        return RecipeError("unknown key", where=where, cure=suggest(name, keys_at(parents)))
    if first["type"] == "model_type":
        return RecipeError("expected a section of keys, got a value", where=where)
    message = first["msg"].removeprefix("Value error, ")
    shown = _shown(first["input"])
    got = "" if _is_hidden(f"{key}={shown}") else f", got {shown}"
    return RecipeError(f"{message[:1].lower()}{message[1:]}{got}", where=where)


def _shown(value: Any) -> str:
    """A value for a message, on one line and shortened."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of more than 4,300 digits"
    return text if len(text) <= 80 else f"{text[:80]}..."


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
    source = _public_source(sources[given])
    # An override, an option or a variable already names its key.
    return source if source.startswith(("-", "argument ", "$SPOT_")) else f"{source}: {key}"


def _dotted(location: tuple[int | str, ...]) -> str:
    """Return the dotted key of an error's location, without the parts that unions and lists append to it."""
    parts: list[str] = []
    for part, (model, _) in zip(location, walk(map(str, location)), strict=False):
        if model is None or isinstance(part, int):
            break
        parts.append(part)
    return ".".join(parts)


def dump(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that loads again; a comment after each value names its source.

    Secrets are left out: keys in ``params`` become digests, and addresses lose their passwords.
    """
    values = recipe.model_dump(mode="json")
    for part in (values["sample"], values["rectify"], values["rectify"]["policy"], values["eval"]):
        part["params"] = public_value(part["params"])
        part["base_url"] = without_credentials(part["base_url"])
    return "".join(_dump_section(values, public_sources(recipe), "", 0))


def flat_values(recipe: Recipe) -> dict[str, Any]:
    """The values of a resolved recipe by dotted key; an empty section or mapping is a value."""

    def flat(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(flat(recipe.model_dump(mode="json"), ""))


def public_sources(recipe: Recipe) -> dict[str, str]:
    """Return the source of each value that is not a default, without secrets."""
    return {key: _public_source(source) for key, source in recipe.sources.items()}


def _public_source(source: str) -> str:
    """The source of a value without the value itself, where that may be secret."""
    key, equals, _ = source.partition("=")
    return key if equals and _is_hidden(source) else source


def _is_hidden(text: str) -> bool:
    """Whether a value, given as KEY=VALUE, may be secret."""
    return bool(re.search(r"params|base_url", text.partition("=")[0])) or may_have_secret(text)


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


S = TypeVar("S", bound=BaseModel)


def load_section(path: Path, model: type[S], kind: str) -> S:
    """Read a YAML file with the keys of one section.

    Args:
        path: the file.
        model: the section.
        kind: what the file is, for messages: ``a task file``.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown or missing, or a value is invalid.
    """
    values, places = _read(path, kind)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        where = f"{places[key]}: {key}" if key in places else str(path)
        if first["type"] == "extra_forbidden":
            raise RecipeError("unknown key", where=where, cure=suggest(key, list(model.model_fields))) from None
        if first["type"] == "missing":
            raise RecipeError(f"the key `{key}` is missing", where=where, cure=f"add `{key}:`") from None
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{message[:1].lower()}{message[1:]}, got {_shown(first['input'])}", where=where) from None


def _read(path: Path, kind: str = "a recipe") -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a YAML file and the line of each key."""
    try:
        files.check_readable(path)
        content = path.read_bytes()
    except FileNotFoundError:
        near = close_name(path)
        cure = f"did you mean '{near}'?" if near else "recipes/ contains examples" if kind == "a recipe" else None
        raise RecipeError(f"{kind.partition(' ')[2]} not found", where=str(path), cure=cure) from None
    except IsADirectoryError:
        raise RecipeError(f"expected {kind}, got a folder", where=str(path), cure="name a YAML file in it") from None
    if encoding := utf16_or_32(content[:16]):
        cure = f"iconv -f {encoding} -t UTF-8 {path.name} > utf8.yaml"
        raise RecipeError(f"expected UTF-8, got {encoding}", where=str(path), cure=cure)
    if len(content) > MAX_BYTES:
        raise RecipeError(f"expected {kind}, got a file of {len(content):,} bytes", where=str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError("not a text file", where=str(path)) from None
    if path.suffix.lower() in DATASETS or _is_json_row(text):
        raise RecipeError(f"expected {kind} (YAML), got a dataset", where=str(path), cure=DATASET_CURE)
    node = compose(text, str(path))
    if node is None:
        return {}, {}
    values = construct(node, str(path))
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise RecipeError(f"expected a mapping of keys to values, got a {type(values).__name__}", where=str(path))
    return values, key_lines(node, path)


def _is_json_row(text: str) -> bool:
    """Whether a text begins with a row of a dataset; a recipe may be JSON too, but it has other keys."""
    try:
        row = json.loads(text.split("\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and kind_of(row) != Row.kind


def _parse(text: str, where: str) -> Any:
    """Return the value of an override."""
    node = compose(text, where)
    return None if node is None else construct(node, where)


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
