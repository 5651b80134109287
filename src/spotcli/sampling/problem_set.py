"""The problems of a sampling run as they are asked, and the requests for their answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from spotcli import __version__, jsonl, outputs
from spotcli.answering.answered import Answered
from spotcli.answering.graded import with_instructions
from spotcli.console import say, warn
from spotcli.errors import UserError
from spotcli.grading.references import CONFLICTING, SHOWN
from spotcli.policies import Request, answer_seed
from spotcli.problems.conflicts import Conflict, Repeats, prompt_key
from spotcli.problems.sources import iter_problems
from spotcli.recipe import Recipe
from spotcli.records import EVALUATION, Problem
from spotcli.sampling.shards import Shard

IN_MEMORY = 20_000
"""Problems that are kept in memory; the rest of a longer set is read again when it is needed."""


@dataclass(frozen=True)
class HeldOut:
    """Evaluation sets whose problems are excluded."""

    names: list[str]
    holder: Callable[[Problem], str | None]
    """The first of the sets that contains a problem."""
    digests: Mapping[str, str]
    """Digest of the problems of each set."""


_EXCLUDED = "problems of "
"""Before the name of a set in the inputs of the meta file, for the digest of its problems."""


def recorded(name: str) -> bool:
    """Whether an input in a meta file is the digest of the problems of an evaluation set."""
    return name.startswith(_EXCLUDED)


@dataclass(frozen=True)
class Counted:
    """The ``counted`` entry of the meta file: a resumed run need not read all problems to count them again."""

    problems: int
    graders: list[str | None]
    left_out: dict[str, int]
    """Excluded problems per evaluation set."""
    others: int
    """Answers in the file that the run did not ask for: to problems beyond its limit, or later trials."""
    conflicting: int | None = None
    """Problems with conflicting reference answers; None in a file of an earlier version, which did not look for them.
    The prompts are not recorded, so they are found again where there are any."""


def read_counted(
    path: Path, settings: dict[str, Any], digests: dict[str, str], asked: dict[str, Any]
) -> Counted | None:
    """What an earlier run with the same settings and inputs counted; None if it has to be counted again.

    Without a digest of the problems (a data set of the hub), they may have changed, so they are counted again.
    """
    meta = outputs.read_meta(path) if settings["problems"] in digests and path.exists() else {}
    unchanged = (
        meta.get("settings") == json.loads(json.dumps(settings))
        and meta.get("inputs") == digests
        and meta.get("versions", {}).get("spotcli") == __version__
        and meta.get("asked") == asked
    )
    counted = Counted(**meta["counted"]) if unchanged and meta.get("counted") else None
    return counted if counted and counted.conflicting == 0 else None


class ProblemSet:
    """The problems of a run: a stream that can be read repeatedly.

    ``count`` reads it once, which finds every invalid row before anything is answered.

    Args:
        recipe: the whole recipe.
        folder: for relative paths.
        shard: keep only the problems of this shard.
        held_out: exclude problems of these sets.
    """

    def __init__(self, recipe: Recipe, folder: Path, shard: Shard | None, held_out: HeldOut | None) -> None:
        self._recipe = recipe
        self._folder = folder
        self._shard = shard
        self._held_out = held_out
        self.trials = recipe.sample.trials
        """Answers per problem."""
        files = {name: folder / name for name in (recipe.sample.problems, *(held_out.names if held_out else ()))}
        self.digests = {name: jsonl.digest(path) for name, path in files.items() if path.is_file()}
        """Of the files that are read, and of the problems that are excluded, wherever they come from."""
        if held_out:
            self.digests |= {f"{_EXCLUDED}{name}": digest for name, digest in held_out.digests.items()}
        self.left_out: Counter[str] = Counter()
        """Excluded problems per evaluation set."""
        self.conflicting = 0
        """Excluded problems with conflicting reference answers."""
        self._conflicts: dict[int, Conflict] = {}
        self.graders: set[str | None] = set()
        self._first: list[Problem] = []
        self._number = 0

    def count(self, counted: Counted | None) -> None:
        """Read all problems, or use what an earlier run counted.

        Raises:
            UserError: the set is not found, or every problem is excluded.
            DataError: an invalid row.
        """
        if counted:
            self._number, self.graders = counted.problems, set(counted.graders)
            self.left_out.update(counted.left_out)
        else:
            repeats = Repeats()
            self._read(repeats)
            if repeats and (conflicts := repeats.conflicts(self._rows(quiet=True), self._recipe.grader)):
                self._conflicts = conflicts
                self._read(None)
                self._report_conflicts()
        if self._held_out:
            listed = ", ".join(f"{name} {self.left_out[name]}" for name in self._held_out.names)
            say(f"excluded {self.left_out.total()} problems that occur in evaluation sets ({listed})")
        if not self._number and not self._shard:
            raise UserError(
                "every problem occurs in an evaluation set or has conflicting reference answers",
                where=self._recipe.sample.problems,
                cure="use another problem set",
            )

    def _read(self, repeats: Repeats | None) -> None:
        """Count the problems.

        Args:
            repeats: collects repeated prompts with other reference answers; None in a second reading.
        """
        self.graders, self.left_out, self.conflicting = set(), Counter(), 0
        self._first, self._number = [], 0
        for problem in self._stream(counting=True, repeats=repeats):
            self.graders.add(problem.grader)
            self._number += 1
            if len(self._first) < IN_MEMORY:
                self._first.append(problem)

    def _report_conflicts(self) -> None:
        if self.conflicting:
            example = next(iter(self._conflicts.values()))
            second, first = (repr(text[:SHOWN]) for text in (example.second, example.first))
            warn(
                f"{example.where}: the reference answer {second} differs from {first} of an earlier row with the same "
                f"prompt; {self.conflicting} problems are left out ({CONFLICTING})"
            )

    def counted(self, others: int) -> Counted:
        """What ``count`` found, for the meta file."""
        return Counted(self._number, sorted(self.graders, key=str), dict(self.left_out), others, self.conflicting)

    def requests(self, *, round_size: int = 1) -> Iterator[tuple[Problem, Request]]:
        """Yield a request per trial: ``round_size`` problems at a time, first trials before second ones."""
        seed, problems = self._recipe.seed, iter(self)
        while part := list(islice(problems, round_size)):
            for trial in range(self.trials):
                for problem in part:
                    key = (problem.id, trial)
                    yield problem, Request(key, problem.messages, answer_seed(seed, *key), trial, problem.tools)

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Problem]:
        rest = self._stream() if self._number > len(self._first) else iter(())
        return chain(self._first, islice(rest, len(self._first), None))

    def _stream(self, *, counting: bool = False, repeats: Repeats | None = None) -> Iterator[Problem]:
        """The problems as they are asked.

        Args:
            counting: count the excluded problems; later readings would count the same ones again.
            repeats: collects repeated prompts with other reference answers, and the set is reported.
        """
        settings = self._recipe.sample
        for problem in self._rows(quiet=repeats is None, repeats=repeats):
            if (problem.model_extra or {}).get("split") == EVALUATION:
                raise UserError(
                    "these problems belong to an evaluation (split: eval), so their answers must not be trained on",
                    where=settings.problems,
                    cure="sample other problems; `spot eval` answers these",
                )
            if self._shard is not None and not self._shard.has(problem.id):
                continue
            if self._held_out and (name := self._held_out.holder(problem)):
                self.left_out[name] += counting
                continue
            if self._conflicts and prompt_key(problem) in self._conflicts:
                self.conflicting += counting
                continue
            yield with_instructions(problem, settings.system, settings.instruction)

    def _rows(self, *, quiet: bool, repeats: Repeats | None = None) -> Iterator[Problem]:
        settings = self._recipe.sample
        return iter_problems(
            settings.problems,
            folder=self._folder,
            seed=self._recipe.seed,
            limit=settings.limit,
            quiet=quiet,
            repeats=repeats,
        )


@dataclass(frozen=True)
class Remaining:
    """What a run still has to answer."""

    missing: int
    """Answers that it asks for and the file does not have."""
    others: int
    """Answers in the file that it does not ask for: to problems beyond its limit, or later trials."""


def count_remaining(problems: ProblemSet, answered: Answered, counted: Counted | None) -> Remaining:
    """Compare the answers in the file with those that a run asks for.

    Args:
        problems: the counted problems.
        answered: the answers in the file.
        counted: what an earlier run with the same settings counted; with it, the problems are not read.
    """
    wanted = len(problems) * problems.trials
    if counted:
        missing = wanted - (len(answered) - counted.others)
    elif len(answered):
        missing = sum(not answered.has(request) for _, request in problems.requests())
    else:
        missing = wanted
    return Remaining(missing, others=len(answered) - (wanted - missing))
