"""Published problem sets: found in a folder of files or on the hub, and checked against their published size.

A set may be on the hub under several names, and copies differ: some have every problem twice. Therefore the number of
problems has to be the published one, and repeated prompts are skipped and reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from spotcli.console import say
from spotcli.errors import DataError, UserError
from spotcli.evaluation.tasks.task import TaskContext
from spotcli.problems.conflicts import Repeats, prompt_key
from spotcli.problems.set_rows import HubError, set_rows
from spotcli.problems.sources import iter_problems
from spotcli.records import Problem

ENDINGS = (".jsonl", ".parquet", ".csv", ".json", ".tsv", ".arrow")
"""Endings of the files of published sets, the preferred one first."""
COMPRESSED = (".gz", ".bz2", ".xz")

T = TypeVar("T")


@dataclass(frozen=True)
class PublishedSet:
    """A problem set that others published."""

    task: str
    """The name of its task."""
    hub: tuple[str, ...]
    """Its names on the hub, ``org/name[:config][:split]``; the first one that can be loaded is used."""
    rows: int
    """Published number of problems."""
    files: tuple[str, ...] = ()
    """More names that its file can have, without the ending."""
    example: str | None = None
    """The file as its publishers name it, for messages; by default the task's name with ``.jsonl``."""

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names that its file can have, without the ending: the task, the config and the name on the hub."""
        parts = [identifier.split(":") for identifier in self.hub]
        configs = tuple(part[1] for part in parts if len(part) > 1 and part[1])
        return (self.task, *self.files, *configs, *(part[0].rpartition("/")[2] for part in parts))


class SetNotFound(UserError):
    """A published set is neither in the folder of files nor on the hub."""

    def __init__(self, published: PublishedSet, data_dir: Path | None, reason: str) -> None:
        self.published = published
        self.data_dir = data_dir
        self.reason = reason
        searched = f"no file {self.file} in {data_dir}, and " if data_dir else ""
        page = published.hub[0].partition(":")[0]
        hub = (
            f"accept the terms at https://huggingface.co/datasets/{page} and run `hf auth login`"
            if self.is_gated
            else f"connect to the hub ({page})"
        )
        super().__init__(
            f"the problem set is missing: {searched}{reason}",
            where=published.task,
            cure=f"{hub}, or set eval.data_dir (--data-dir) to a folder with {self.file}",
        )

    @property
    def file(self) -> str:
        """The name of the file that would be read."""
        return self.published.example or f"{self.published.task}.jsonl"

    @property
    def is_gated(self) -> bool:
        """Whether the hub has the set, but its terms have to be accepted."""
        return "gated" in self.reason


def refuse_missing(errors: Sequence[SetNotFound]) -> None:
    """Raise one error for all sets that are missing.

    Raises:
        UserError: at least one set is missing.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        tasks = ", ".join(error.published.task for error in errors)
        data_dir = errors[0].data_dir
        searched = f"no files in {data_dir}, and " if data_dir else ""
        raise UserError(
            f"{len(errors)} problem sets are missing ({tasks}): {searched}{errors[0].reason}",
            where="eval.tasks",
            cure="connect to the hub (and log in, for gated sets), or set eval.data_dir (--data-dir) to a folder with "
            + ", ".join(error.file for error in errors),
        )


def read_published(published: PublishedSet, context: TaskContext, read: Callable[[str, Path], T]) -> T:
    """Read a set from the first source that has it: a file that is named, the folder of files, or the hub.

    Args:
        published: the set.
        context: where to look; ``context.problems`` replaces the names on the hub, or is a file.
        read: reads the set from a source as ``sources.iter_problems`` takes it, and a folder for relative paths.

    Raises:
        SetNotFound: no source has the set.
        UserError: the set cannot be read, or has another number of problems.
        DataError: an invalid row.
    """
    named = context.problems
    if named and not named.startswith("hf:"):
        return read(named, context.folder)
    if source := local_source(context.data_dir, published.file_names):
        return read(source, context.folder)
    reasons = []
    for identifier in [named.removeprefix("hf:")] if named else published.hub:
        try:
            return read(f"hf:{identifier}", context.folder)
        except HubError as error:
            reasons.append(error.message)
    # A gated set can be had; a set that another name does not find was renamed.
    reason = next((reason for reason in reasons if "gated" in reason), reasons[0])
    raise SetNotFound(published, context.data_dir, reason)


def local_source(data_dir: Path | None, names: Sequence[str]) -> str | None:
    """The file of a set in a folder, or ``hf:FOLDER`` for a folder of data files; None if there is neither.

    Case, ``-`` and ``_`` in names are ignored.

    Raises:
        UserError: ``data_dir`` is not a folder.
    """
    if data_dir is None:
        return None
    if not data_dir.is_dir():
        raise UserError("folder not found", where=f"eval.data_dir: {data_dir}", cure="check --data-dir")
    paths = sorted(data_dir.iterdir())
    files = {_file_key(path): path for path in reversed(paths) if path.is_file()}
    folders = {_plain(path.name): path for path in reversed(paths) if path.is_dir()}
    for name in names:
        for ending in ENDINGS:
            if path := files.get((_plain(name), ending)):
                return str(path.absolute())
    for name in names:
        if path := folders.get(_plain(name)):
            return local_source(path, names) or f"hf:{path.absolute()}"
    return None


def _file_key(path: Path) -> tuple[str, str]:
    name = path.stem if path.suffix.lower() in COMPRESSED else path.name
    return _plain(Path(name).stem), Path(name).suffix.lower()


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.casefold())


def load_published(published: PublishedSet, context: TaskContext) -> list[Problem]:
    """The problems of a set whose columns ``sources.iter_problems`` reads, each with a reference answer.

    Raises:
        UserError, DataError: as ``read_published``.
    """

    def read(source: str, folder: Path) -> list[Problem]:
        repeats = Repeats()
        problems = list(
            iter_problems(source, folder=folder, seed=context.seed, limit=None, quiet=True, repeats=repeats)
        )
        check_number(published, source, len(problems), repeated=repeats.skipped)
        if conflicts := repeats.conflicts(problems, "math") if repeats else {}:
            conflict = next(iter(conflicts.values()))
            raise DataError(
                f"the reference answer {conflict.second!r} differs from {conflict.first!r} of an earlier row with the "
                "same prompt",
                where=conflict.where,
                cure="use another copy of the set",
            )
        check_references(problems)
        return problems

    return read_published(published, context, read)


class Convert(Protocol):
    """Makes a problem of a published row; raises DataError if a column is missing or invalid."""

    def __call__(self, row: dict[str, Any], /, *, where: str, source: str) -> Problem: ...


def load_converted(published: PublishedSet, context: TaskContext, convert: Convert) -> list[Problem]:
    """The problems of a set whose columns only its task can read.

    Raises:
        UserError, DataError: as ``read_published``.
    """

    def read(source: str, folder: Path) -> list[Problem]:
        name = source if source.startswith("hf:") else Path(source).name
        problems: dict[int, Problem] = {}
        ids: set[str] = set()
        repeated = 0
        for where, number, row in set_rows(source, folder):
            problem = convert(row, where=where, source=f"{name}#{number}")
            if prompt_key(problem) in problems:
                repeated += 1
                continue
            if problem.id in ids:
                raise DataError(
                    f"duplicate id {problem.id!r} with a different prompt",
                    where=where,
                    cure="use another copy of the set",
                )
            ids.add(problem.id)
            problems[prompt_key(problem)] = problem
        check_number(published, source, len(problems), repeated=repeated)
        return list(problems.values())

    return read_published(published, context, read)


def column_error(published: PublishedSet, columns: Sequence[str], problem: str, where: str) -> DataError:
    """The error for a row that does not have the published columns."""
    return DataError(
        problem, where=where, cure=f"use the published file of {published.task}, with the columns {', '.join(columns)}"
    )


def check_number(published: PublishedSet, source: str, number: int, *, repeated: int = 0) -> None:
    """Check the number of problems, and report repeated rows.

    Raises:
        UserError: the number is not the published one.
    """
    skipped = f" and {repeated} rows with a repeated prompt" if repeated else ""
    if number != published.rows:
        raise UserError(
            f"expected the {published.rows} published problems of {published.task}, got {number}{skipped}",
            where=source,
            cure="use a complete copy of the set; any other problem set can be a task of its own (--task FILE)",
        )
    if repeated:
        say(f"{source}: skipped {repeated} rows with a repeated prompt; {number} problems remain, as published")


def check_references(problems: Sequence[Problem]) -> None:
    """Check that every problem has a reference answer.

    Raises:
        DataError: a reference answer is missing.
    """
    for problem in problems:
        if problem.reference is None:
            raise DataError(
                "the reference answer is missing",
                where=problem.source,
                cure='add "answer", or a solution with the answer in its last \\boxed{}',
            )
