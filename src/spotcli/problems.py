"""Problem sets by name: a JSONL file, a built-in, a data set of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from spotcli import jsonl
from spotcli.console import say
from spotcli.errors import UserError
from spotcli.records import Problem

BUILTINS = ("builtin:arithmetic",)


def open_problems(name: str, *, folder: Path, seed: int, limit: int | None) -> list[Problem]:
    """The problems of a set, each prompt once.

    Args:
        name: a path (relative to ``folder``), ``builtin:arithmetic`` (its train split) or ``hf:NAME[:config][:split]``
        seed: of a generated set.
        limit: the first N problems; a generated set without a limit gives 600.

    Raises:
        UserError: there is no such set, or it is out of reach.
        DataError: a row that is no problem.
    """
    if name.startswith("builtin:"):
        if name not in BUILTINS:
            raise UserError(f"there is no built-in problem set '{name}'", cure=f"there is {', '.join(BUILTINS)}")
        from spotcli.tasks import arithmetic

        return arithmetic.take(seed, "train", limit or 600)
    rows = _hub(name.removeprefix("hf:")) if name.startswith("hf:") else _file(folder / name)
    seen: dict[str, None] = {}
    kept, repeated = [], 0
    for problem in rows:
        prompt = repr(problem.prompt)
        if prompt in seen:
            repeated += 1
            continue
        seen[prompt] = None
        kept.append(problem)
        if limit and len(kept) == limit:
            break
    if repeated:
        say(f"{repeated} problems whose prompt was there already are left out")
    if not kept:
        raise UserError("there is no problem in it", where=name)
    return kept


def iter_problems(name: str, *, folder: Path, seed: int, limit: int | None, quiet: bool = False) -> Iterator[Problem]:
    yield from open_problems(name, folder=folder, seed=seed, limit=limit)


def _file(path: Path) -> Iterator[Problem]:
    renamed: dict[str, str] = {}
    yield from jsonl.read(path, Problem, renamed=renamed)
    if renamed:
        say(f"{path}: reading " + ", ".join(f"'{other}' as '{ours}'" for other, ours in renamed.items()))


def _hub(name: str) -> Iterator[Problem]:
    import datasets

    parts = name.split(":")
    path, config, split = parts[0], (parts[1] if len(parts) > 1 else None), (parts[2] if len(parts) > 2 else "train")
    try:
        rows = datasets.load_dataset(path, config or None, split=split, streaming=True)
        first = list(islice(rows, 1))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the data set cannot be loaded: {reason}",
            where=f"hf:{name}",
            cure="check the name, or download it as JSONL",
        ) from None
    if not first:
        return
    for number, row in enumerate(rows):
        yield jsonl.as_record({"source": f"hf:{path}#{number}", **row}, Problem, where=f"hf:{name}#{number}")
