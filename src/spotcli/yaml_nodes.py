"""YAML as values: composed once, measured before it is built, so that no file can make a recipe expensive to read.

An alias costs a few characters and can stand for a whole section: ten lines can describe a billion values. Dates are
read as text, since no setting is a date.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli.errors import RecipeError

if TYPE_CHECKING:
    import yaml

MAX_VALUES = 20_000
"""Values in a recipe after all aliases are replaced."""
MAX_DEPTH = 50
"""Levels of lists and mappings in a recipe."""

MAX_DIGITS = 4_000
"""Digits of an integer; Python refuses to convert somewhat longer ones."""

_INTEGER = "tag:yaml.org,2002:int"
_MERGE = "tag:yaml.org,2002:merge"
_STRING = "tag:yaml.org,2002:str"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


@cache
def _loader() -> Any:
    """PyYAML's safe loader without dates."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def compose(text: str, where: str) -> yaml.Node | None:
    """Return the tree of a YAML document, whose size is checked; None if it is empty.

    Args:
        text: the document.
        where: the file or the override, for the error.

    Raises:
        RecipeError: invalid YAML, nested too deeply, or too many values.
    """
    import yaml

    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_loader())
        if node is not None:
            _check_size(node, where)
    except RecursionError:
        raise _too_deep(where) from None
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, where) from None
    return node


def construct(node: yaml.Node, where: str) -> Any:
    """Return the value of a tree; numbers such as ``5e-5`` are numbers, as in YAML 1.2.

    Raises:
        RecipeError: an unknown tag, an invalid merge, or an invalid number.
    """
    import yaml

    loader = _loader()("")
    try:
        return _with_floats(loader.construct_document(node))
    except RecursionError:
        raise _too_deep(where) from None
    except yaml.YAMLError as error:
        raise _syntax_error(error, "", where) from None
    except (ValueError, TypeError) as error:
        raise RecipeError(f"invalid YAML ({error})", where=where) from None
    finally:
        loader.dispose()


def key_lines(node: yaml.Node, path: Path) -> dict[str, str]:
    """Return dotted key -> ``FILE:LINE``.

    Raises:
        RecipeError: a key is duplicate (YAML would silently take the last one), or not text.
    """
    import yaml

    places: dict[str, str] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        first_lines: dict[str, int] = {}
        for name, value in node.value:
            if name.tag == _MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    walk(merged, prefix)
                continue
            key, line = f"{prefix}{name.value}", name.start_mark.line + 1
            if name.tag != _STRING:
                raise RecipeError(
                    f"expected text as a key, got {name.value!s:.40}",
                    where=f"{path}:{line}",
                    cure="put the key in quotes",
                )
            if key in first_lines:
                message = f"duplicate key (first in line {first_lines[key]})"
                raise RecipeError(message, where=f"{path}:{line}: {key}", cure="remove one of the two lines")
            first_lines[key] = line
            places[key] = f"{path}:{line}"
            walk(value, f"{key}.")

    walk(node, "")
    return places


def _check_size(root: yaml.Node, where: str) -> None:
    """Count the values that a tree describes, each alias as what it stands for.

    Raises:
        RecipeError: too many values, nested too deeply, or an alias inside what it stands for.
    """
    import yaml

    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if not isinstance(node, yaml.CollectionNode):
            if node.tag == _INTEGER and len(node.value) > MAX_DIGITS:
                message = f"a number has more than {MAX_DIGITS:,} digits"
                raise RecipeError(message, where=_at(where, node.start_mark.line + 1))
            return 1
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise RecipeError("an alias refers to itself", where=f"{where}:{node.start_mark.line + 1}")
        if len(open_nodes) >= MAX_DEPTH:
            raise _too_deep(where)
        open_nodes.add(id(node))
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        total = 1 + sum(map(size, parts))
        open_nodes.remove(id(node))
        sizes[id(node)] = total
        return total

    if (values := size(root)) > MAX_VALUES:
        cure = "write the values without aliases (&, *)"
        raise RecipeError(f"the aliases stand for {values:,} values", where=where, cure=cure)


def _too_deep(where: str) -> RecipeError:
    return RecipeError("nested too deeply", where=where)


def _syntax_error(error: yaml.YAMLError, text: str, where: str) -> RecipeError:
    """The error for invalid YAML, with its line and the cure."""
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"invalid YAML (the control character U+{code:04X})"
        return RecipeError(message, where=_at(where, line), cure="remove it, or write it as an escape in quotes")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or "unreadable"
    cure = None
    if "'\\t'" in problem:
        cure = "indent with spaces; YAML does not allow tabs"
    elif "another document" in problem:
        cure = "a recipe is one document: remove the line `---`"
    return RecipeError(f"invalid YAML ({problem})", where=_at(where, mark.line + 1) if mark else where, cure=cure)


def _at(where: str, line: int) -> str:
    return where if where.startswith(("-s ", "$SPOT_")) else f"{where}:{line}"


def _with_floats(value: Any) -> Any:
    """Convert strings such as ``5e-5``, the usual form of a learning rate, which YAML 1.1 does not read as a number."""
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d++\.?\d*+|\.\d++)[eE][+-]?\d+", value):
        return float(value)
    return value
