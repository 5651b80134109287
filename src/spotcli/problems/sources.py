"""Problem sets by name: a file (JSONL, Parquet, CSV), a data set of the hub, or a built-in set.

Published sets are read as they are. Fields with other names are renamed and reported; a reference answer inside another
field (a worked solution, verl's ``reward_model``) is extracted; a repeated prompt is skipped. Sets are streams, so they
may have millions of rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from spotcli import jsonl
from spotcli.console import detail, note_renamed_fields, say
from spotcli.errors import DataError, UserError
from spotcli.grading.find_answer import find_reference
from spotcli.problems.chat_rows import CHATS, as_problem_row
from spotcli.problems.choices import refuse_unseen_choices
from spotcli.problems.conflicts import Repeat, Repeats, prompt_key
from spotcli.problems.seen import Seen
from spotcli.problems.set_rows import file_rows, set_rows
from spotcli.records import Problem, UngradedSample, is_placeholder, key_hash, text_content

BUILTINS = ("builtin:arithmetic",)

QUESTIONS = {"prompt", "question", "problem"}
"""Names of the field with the prompt."""
KNOWN = QUESTIONS | {"answer", "ground_truth", "final_answer", "solution", "response"}
"""Fields that are known in upper and lower case."""
ANSWER_LENGTH = 60
"""Maximum characters of a ``solution`` that is the reference answer itself; a longer one has to announce its answer."""


P = TypeVar("P", bound=Problem)


def iter_problems(
    name: str, *, folder: Path, seed: int, limit: int | None, quiet: bool = False, repeats: Repeats | None = None
) -> Iterator[Problem]:
    """Stream the problems of a set; repeated prompts are skipped.

    Args:
        name: a path relative to ``folder`` (.parquet, .csv, JSONL otherwise); ``hf:NAME[:config][:split]`` with the
            name of a data set on the hub or a folder; or ``builtin:arithmetic`` (its train split).
        folder: for relative paths.
        seed: of a generated set.
        limit: only the first N problems; without a limit, a generated set has 600.
        quiet: do not report renamed fields and skipped rows, because the set was read before.
        repeats: collects repeated prompts with other reference answers.

    Raises:
        UserError: the set is not found, cannot be read, or is empty.
        DataError: an invalid row, with its place.
    """
    if name.startswith("builtin:"):
        if name not in BUILTINS:
            raise UserError(f"unknown built-in problem set '{name}'", cure=f"available: {', '.join(BUILTINS)}")
        from spotcli.problems import arithmetic

        yield from arithmetic.take(seed, "train", limit or 600)
        return
    rows = set_rows(name, folder, quiet=quiet)
    source = name if name.startswith("hf:") else Path(name).name
    renamed: dict[str, str] = {}
    prompts, ids, references = Seen(), Seen(), Seen()
    kept = repeated = unanswered = 0
    for where, number, row in rows:
        problem = _problem({"source": f"{source}#{number}"} | row, where, renamed)
        own_id = row.get("id") not in (None, "")
        prompt, reference = prompt_key(problem), problem.reference
        is_new_reference = reference is not None and references.add(key_hash(prompt, reference.strip()))
        if not prompts.add(prompt):
            repeated += 1
            if repeats is not None:
                repeats.add(
                    prompt, Repeat(where, reference, problem.grader) if reference and is_new_reference else None
                )
            continue
        if own_id and not ids.add(key_hash(problem.id)):
            raise DataError(
                f"duplicate id {problem.id!r} with a different prompt",
                where=where,
                cure="give each row a unique id, or remove the ids",
            )
        kept += 1
        unanswered += problem.reference is None
        yield problem
        if kept == limit:
            break
    if not kept:
        raise UserError("the problem set is empty", where=name, cure="use another problem set")
    if quiet:
        return
    detail(f"{name}: read {kept:,} problems")
    note_renamed_fields(Path(name), renamed)
    if repeated:
        say(f"{name}: skipped {repeated} rows with a repeated prompt; {kept} problems remain")
    if unanswered:
        say(f"{name}: {unanswered} problems have no reference answer; their answers will be undecided")


def iter_answers(path: Path, *, quiet: bool = False) -> Iterator[UngradedSample]:
    """Stream answers to problems from a file (.parquet, .csv, .tsv, JSONL otherwise), which nobody has graded.

    Args:
        path: the file.
        quiet: do not report renamed fields, because the file was read before.

    Raises:
        UserError: the file is not found or cannot be read.
        DataError: an invalid row, or a second answer with the same ``id`` and ``trial``, with its place.
    """
    renamed: dict[str, str] = {}
    keys: set[tuple[str, int]] = set()
    for where, number, row in file_rows(path):
        if not CHATS & {*row}:
            jsonl.refuse_other_kind(row, UngradedSample, path)
        jsonl.refuse_evaluated(row, where)
        answer = _record({"source": f"{path.name}#{number}"} | row, UngradedSample, where, renamed)
        if answer.key in keys:
            raise DataError(
                f"duplicate answer {answer.key!r}",
                where=where,
                cure='number the answers to one problem with "trial": 0, 1, ...',
            )
        keys.add(answer.key)
        yield answer
    if not quiet:
        note_renamed_fields(path, renamed)


def _problem(row: dict[str, Any], where: str, renamed: dict[str, str]) -> Problem:
    """A published row as a problem; renamed fields are added to ``renamed``."""
    return _record(row, Problem, where, renamed)


def _record(row: dict[str, Any], model: type[P], where: str, renamed: dict[str, str]) -> P:
    """A published row as a record with a problem; renamed fields are added to ``renamed``.

    Raises:
        DataError: a missing or invalid field.
    """
    # Data frames write NaN, the only value that differs from itself, for a missing value.
    row = {name: value for name, value in row.items() if value == value}
    _lower_case(row, renamed)
    if row.get("id", "") is None:
        del row["id"]
    if isinstance(row.get("id"), int | float):
        row["id"] = as_text(row["id"])
    is_number = isinstance(row.get("answer"), int | float)
    row = as_problem_row(row, "solution" if model is Problem else "response", where, renamed)
    if isinstance(row.get("response"), list):
        row["response"] = _joined(row["response"], where)
    if isinstance(row.get("prompt"), list):
        # In Parquet, every message has every field that any message has.
        row["prompt"] = [
            {name: value for name, value in message.items() if value is not None}
            if isinstance(message, dict)
            else message
            for message in row["prompt"]
        ]
    for source, reference in _references(row, where):
        # A placeholder for a missing value must not hide the reference answer in another field.
        if reference is not None and not (isinstance(reference, str) and is_placeholder(reference)):
            row["answer"] = _accepted(reference, row, source, where)
            if source != "answer":
                renamed[source] = "answer"
            if source in Problem.aliases:
                del row[source]
            break
    if not QUESTIONS & {*row}:
        names = ", ".join(name[:40] for name in [*row][:12] if name != "source")
        raise DataError(
            "the field 'prompt' is missing",
            where=where,
            cure=f"{model.kind} require prompt, question or problem; this row has {names or 'no fields'}",
        )
    if model is Problem:
        refuse_unseen_choices(row, where, is_number=is_number)
    return jsonl.as_record(row, model, where=where, renamed=renamed)


def _lower_case(row: dict[str, Any], renamed: dict[str, str]) -> None:
    """Rename known fields that are written in another case, such as ``Question`` and ``Answer``, in place."""
    for field in [*row]:
        name = field.lower()
        if name in KNOWN and name not in row:
            row[name] = row.pop(field)
            renamed[field] = name


def _references(row: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Candidates for the reference answer with their source, the most likely one first; None where it is missing.

    Raises:
        DataError: the final answers are a list as text that cannot be read.
    """
    answer = row.get("answer")
    if isinstance(answer, str) and "####" in answer:
        row.setdefault("solution", answer)
        yield "answer after ####", answer.rpartition("####")[2].strip()
        answer = row["answer"] = None  # a worked solution whose answer is a placeholder
    yield "answer", answer
    yield "ground_truth", row.get("ground_truth")
    reward = row.get("reward_model")
    yield "reward_model.ground_truth", reward.get("ground_truth") if isinstance(reward, dict) else None
    final = _listed(row.get("final_answer"), where)
    yield "final_answer", ", ".join(map(str, final)) if isinstance(final, list) and final else final or None
    solution = row.get("solution")
    if isinstance(solution, str) and solution.strip():
        final_answer = find_reference(solution)
        if final_answer.text != solution.strip():
            yield "final answer of solution", final_answer.text
        elif len(final_answer.text) <= ANSWER_LENGTH and "\n" not in final_answer.text:
            yield "solution", final_answer.text
        else:
            # `solution` is an alias of `answer`, so the whole text would become the answer.
            row["answer"] = None


def _listed(value: Any, where: str) -> Any:
    """The list in a cell of a table, which contains it as JSON; any other value unchanged.

    Raises:
        DataError: a list in the notation of Python or numpy, in which a program wrote the cell.
    """
    if not isinstance(value, str) or not value.strip().startswith(("['", '["')):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise DataError(
            f"expected a list as JSON in 'final_answer', got {value[:40]!r}",
            where=where,
            cure='write it as JSON, such as ["2"], or use a JSONL or Parquet file, which keep lists',
        ) from None


def _joined(parts: list[Any], where: str) -> Any:
    """The text of an answer that is written as a list of parts.

    Raises:
        DataError: a part is not text.
    """
    try:
        return text_content({"content": parts})["content"]
    except ValueError as error:
        raise DataError(f"the field 'response': {error}", where=where, cure="correct or remove the row") from None


def _accepted(reference: Any, row: dict[str, Any], source: str, where: str) -> Any:
    """The reference answer as text; of several accepted ones the first, and all of them in ``accepted_answers``.

    Raises:
        DataError: a list with something else than text and numbers.
    """
    if not isinstance(reference, list):
        return as_text(reference)
    texts = [as_text(item) for item in reference if item is not None]
    if not all(isinstance(text, str) for text in texts):
        message = f"expected a text or a list of accepted answers in '{source}', got a list of other values"
        raise DataError(message, where=where, cure="write each accepted answer as text")
    texts = list(dict.fromkeys(text for text in texts if not is_placeholder(text)))
    if len(texts) > 1:
        row["accepted_answers"] = texts
    return texts[0] if texts else None


def as_text(value: Any) -> Any:
    """A number as text, 27.0 as "27"; any other value unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None  # a number that was too large to be stored
    return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
