"""Problem sets by name: a file (JSONL, Parquet, CSV), a data set of the hub, a built-in.

Published sets are read as they are. Fields that they call otherwise are renamed and said aloud, a reference that stands
inside something else (a worked solution, a verl ``reward_model``) is taken out of it, and a prompt is asked once,
however often it is repeated. Sets are streams, so there can be millions of rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.console import say
from spotcli.errors import DataError, UserError
from spotcli.grading.find_answer import find_reference
from spotcli.problems.seen import Seen
from spotcli.records import Problem, key_hash, prompt_digest

BUILTINS = ("builtin:arithmetic",)

# Rows that are in memory at once.
BATCH = 1024
# A solution that is longer, and announces no answer, is not taken for one.
ANSWER_LENGTH = 60

Rows = Iterator[tuple[str, int, dict[str, Any]]]
"""Where a row stands, its number from 1, and what it holds."""


def iter_problems(name: str, *, folder: Path, seed: int, limit: int | None, quiet: bool = False) -> Iterator[Problem]:
    """Stream the problems of a set, each prompt once.

    Args:
        name: a path (relative to ``folder``) that ends in .parquet, .csv or anything else for JSONL;
            ``hf:NAME[:config][:split]``, with a name of the hub or a folder; ``builtin:arithmetic`` (its train split).
        seed: of a generated set.
        limit: the first N problems; a generated set without a limit gives 600.
        quiet: say nothing of what was renamed and left out, because the set was read before.

    Raises:
        UserError: there is no such set, it is out of reach, or there is no problem in it.
        DataError: a row that is no problem, with the place.
    """
    if name.startswith("builtin:"):
        if name not in BUILTINS:
            raise UserError(f"there is no built-in problem set '{name}'", cure=f"there is {', '.join(BUILTINS)}")
        from spotcli.problems import arithmetic

        yield from arithmetic.take(seed, "train", limit or 600)
        return
    rows = _hub(name, folder) if name.startswith("hf:") else _file(folder / name)
    source = name if name.startswith("hf:") else Path(name).name
    renamed: dict[str, str] = {}
    prompts, ids = Seen(), Seen()
    kept = repeated = unanswered = 0
    for where, number, row in rows:
        problem = _problem({"source": f"{source}#{number}"} | row, where, renamed)
        own_id = row.get("id") not in (None, "")
        if not prompts.add(int(prompt_digest(problem.prompt) if own_id else problem.id, 16)):
            repeated += 1
            continue
        if own_id and not ids.add(key_hash(problem.id)):
            raise DataError(
                f"an earlier row has the id {problem.id!r} too, and another prompt",
                where=where,
                cure="give each row an id of its own, or leave the ids out",
            )
        kept += 1
        unanswered += problem.answer is None
        yield problem
        if kept == limit:
            break
    if not kept:
        raise UserError("there is no problem in it", where=name)
    if quiet:
        return
    if renamed:
        say(f"{name}: reading " + ", ".join(f"'{other}' as '{ours}'" for other, ours in renamed.items()))
    if repeated:
        say(f"{repeated} problems whose prompt was there already are left out; {kept} remain")
    if unanswered:
        say(f"{unanswered} problems have no reference answer, so what is answered to them stays undecided")


def _problem(row: dict[str, Any], where: str, renamed: dict[str, str]) -> Problem:
    """A published row as a problem.

    Raises:
        DataError: it is none.
    """
    # NaN, the one value that differs from itself, is how data frames write that there is nothing.
    row = {name: value for name, value in row.items() if value == value}
    if row.get("id", "") is None:
        del row["id"]
    if isinstance(row.get("id"), int | float):
        row["id"] = _as_text(row["id"])
    if isinstance(row.get("prompt"), list):
        # Parquet gives every message every field that any message has.
        row["prompt"] = [
            {name: value for name, value in message.items() if value is not None}
            if isinstance(message, dict)
            else message
            for message in row["prompt"]
        ]
    for place, reference in _references(row, where):
        if reference is not None:
            row["answer"] = _as_text(reference)
            if place != "answer":
                renamed[place] = "answer"
            if place in Problem.aliases:
                del row[place]
            break
    return jsonl.as_record(row, Problem, where=where, renamed=renamed)


def _references(row: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Where the reference answer may stand, the likeliest place first."""
    answer = row.get("answer")
    if isinstance(answer, str) and "####" in answer:
        row.setdefault("solution", answer)
        yield "answer, behind ####", answer.rpartition("####")[2].strip()
    if isinstance(row.get("choices"), list) and isinstance(answer, int):
        raise DataError(
            "the answer is the number of a choice",
            where=where,
            cure='put the choices into the prompt and the letter into "answer", with "grader": "choice"',
        )
    yield "answer", answer
    yield "ground_truth", row.get("ground_truth")
    reward = row.get("reward_model")
    yield "reward_model.ground_truth", reward.get("ground_truth") if isinstance(reward, dict) else None
    final = row.get("final_answer")
    yield "final_answer", ", ".join(map(str, final)) if isinstance(final, list) and final else final or None
    solution = row.get("solution")
    if isinstance(solution, str) and solution.strip():
        found = find_reference(solution)
        if found.kind != "whole":
            yield "solution, its final answer", found.text
        elif len(found.text) <= ANSWER_LENGTH and "\n" not in found.text:
            yield "solution", found.text
        else:
            # It would be taken for the answer by its other name.
            row["answer"] = None


def _as_text(value: Any) -> Any:
    """A number as one writes it, 27.0 as 27; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)


def _file(path: Path) -> Rows:
    if path.is_dir():
        raise UserError(
            "this is a folder, not a file of problems",
            where=str(path),
            cure=f"hf:{path} reads a folder of data files as the hub would",
        )
    ending = path.suffix.lower()
    if ending in (".parquet", ".csv") and not path.exists():
        raise UserError("file not found", where=str(path), cure="check the path")
    if ending == ".parquet":
        return _parquet(path)
    if ending == ".csv":
        return _csv(path)
    return ((f"{path}:{number}", number, row) for number, row in jsonl.numbered(path))


def _parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        # What is read ahead would be kept, and a row group can be as large as the file.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(BATCH))
            yield from _placed(path, chain.from_iterable(batches))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"this is no Parquet file that can be read: {reason}", where=str(path)) from None


def _csv(path: Path) -> Rows:
    """Cells are text, and an empty one says nothing."""
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            head = next(reader, [])
            for number, cells in enumerate(filter(None, reader), 1):
                if len(cells) != len(head):
                    raise csv.Error(f"{len(cells)} cells, where the head has {len(head)}")
                row = {name: cell for name, cell in zip(head, cells, strict=True) if cell}
                yield f"{path}: row {number}", number, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"not CSV in UTF-8 ({error})", where=f"{path}:{reader.line_num}", cure="mend or remove that line"
            ) from None


def _placed(source: Path | str, rows: Iterable[dict[str, Any]]) -> Rows:
    return ((f"{source}: row {number}", number, row) for number, row in enumerate(rows, 1))


def _hub(name: str, folder: Path) -> Rows:
    """A data set of the hub, or of a folder, by way of the local cache: a second reading needs no network.

    Raises:
        UserError: it cannot be had, or it is not said which part of it is meant.
    """
    import datasets

    path, config, split = [*name.removeprefix("hf:").split(":"), "", ""][:3]
    if (folder / path).is_dir():
        path = str((folder / path).absolute())
    try:
        found = datasets.load_dataset(path, config or None, split=split or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the data set cannot be loaded: {reason}",
            where=name,
            cure="hf:NAME, hf:NAME:CONFIG, hf:NAME:CONFIG:SPLIT or hf:NAME::SPLIT; without a network, a file of it",
        ) from None
    if isinstance(found, dict):
        chosen = "train" if "train" in found else next(iter(found))
        if chosen != "train" and len(found) > 1:
            raise UserError(
                f"it has the splits {', '.join(found)}", where=name, cure=f"hf:{path}:{config}:{chosen}, or another"
            )
        found = found[chosen]
    batches = (
        [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        for batch in found.iter(BATCH)
    )
    return _placed(name, chain.from_iterable(batches))
