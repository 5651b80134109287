"""One sampling job on several machines: each answers a fixed part of the problems, and the parts are merged.

spot sample --shard 2/8         the second of eight shards, into samples.shard-2-of-8.jsonl
spot sample --merge             the eight shards, into samples.jsonl
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.errors import RecipeError, UserError
from spotcli.problems.seen import Seen
from spotcli.problems.set_rows import BATCH
from spotcli.records import key_hash
from spotcli.sampling.pass_rates import PassRate, write_pass_rates

_FORM = re.compile(r"([1-9]\d*)/([1-9]\d*)")


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``of`` parts of the problems, from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse ``2/8``.

        Raises:
            RecipeError: the text has another form, or the number is too large.
        """
        match = _FORM.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise RecipeError(
                f"invalid shard '{text}': use I/N with 1 <= I <= N",
                where="--shard",
                cure="--shard 2/8 is the second of eight shards",
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, problem_id: str) -> bool:
        """Whether a problem is in the shard: decided by its id, so neither the order nor the machine matters."""
        return key_hash(problem_id) % self.of == self.number - 1

    def path(self, output: Path) -> Path:
        """The shard's own file for an output."""
        return output.with_name(f"{output.stem}.shard-{self.number}-of-{self.of}{output.suffix}")


@dataclass(frozen=True)
class MergeSummary:
    """The result of ``spot sample --merge``."""

    path: str
    shards: int
    problems: int
    decontaminated: dict[str, int]
    """Excluded problems per evaluation set."""
    conflicting: int
    """Excluded problems whose prompt has different reference answers."""
    answers: int
    right: int
    wrong: int
    undecided: int
    truncated: int
    """Undecided answers that reached the token limit."""
    pass_rate: PassRate | None
    """None with a single trial."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _MergedRows:
    """The keys and verdicts of the merged file."""

    def __init__(self) -> None:
        self._keys = Seen()
        self.verdicts: Counter[str] = Counter()
        self.truncated = 0

    def add(self, row: dict[str, Any]) -> bool:
        """Count a row; False if the file has its key already."""
        if not self._keys.add(_key(row)):
            return False
        self.verdicts[row["verdict"]] += 1
        self.truncated += row["finish_reason"] == "length"
        return True


def merge(output: Path, *, fresh: bool = False) -> MergeSummary:
    """Merge the shards of a job into the file that the undivided job would have written, up to the order of rows.

    Answers that the file has already are kept, so a merge can be stopped and repeated, also after more trials.

    Args:
        output: the merged file; the shards are next to it.
        fresh: set an existing file aside and start over.

    Raises:
        UserError: a shard is missing or incomplete, or its settings differ from the first one's.
        SettingsChanged: the output exists and was made with other settings.
    """
    paths = _shard_paths(output)
    metas = [outputs.read_meta(path) for path in paths]
    settings, inputs = _common(paths, metas)
    rows = _MergedRows()
    with outputs.Output(
        output, command="spot sample", settings=settings, inputs=inputs, scan=rows.add, fresh=fresh
    ) as merged:
        facts = {name: metas[0][name] for name in ("asked", "engine") if name in metas[0]}
        merged.note(**facts, merged=[path.name for path in paths], complete=False)
        _append(paths, merged, rows)
        counts = [meta["counts"] for meta in metas]
        summary = MergeSummary(
            path=str(output),
            shards=len(paths),
            problems=sum(shard["problems"] for shard in counts),
            decontaminated=dict(sum((Counter(shard["decontaminated"]) for shard in counts), Counter[str]())),
            conflicting=sum(shard.get("conflicting", 0) for shard in counts),
            answers=rows.verdicts.total(),
            right=rows.verdicts["right"],
            wrong=rows.verdicts["wrong"],
            undecided=rows.verdicts["undecided"],
            truncated=rows.truncated,
            pass_rate=write_pass_rates(output) if any(shard["pass_rate"] for shard in counts) else None,
        )
        merged.finish({name: value for name, value in summary.as_dict().items() if name not in ("path", "shards")})
    return summary


def _append(paths: Sequence[Path], merged: outputs.Output, rows: _MergedRows) -> None:
    """Append the answers of all shards that the merged file does not have.

    Raises:
        UserError: two shards have the same answer.
    """
    in_shards = Seen()
    for path in paths:
        stream = jsonl.rows(path)
        while batch := list(islice(stream, BATCH)):
            for row in batch:
                if not in_shards.add(_key(row)):
                    raise UserError(
                        f"duplicate answer to problem {row['id']!r}: another shard has it too",
                        where=str(path),
                        cure="sample the shards again with --fresh",
                    )
            merged.append(row for row in batch if rows.add(row))


def _key(row: dict[str, Any]) -> int:
    return key_hash(row["id"], row.get("trial", 0))


def _shard_paths(output: Path) -> list[Path]:
    """The files of all shards of the job, in order.

    Raises:
        UserError: one of them is missing, or the files belong to different jobs.
    """
    pattern = re.compile(rf"{re.escape(output.stem)}\.shard-(\d+)-of-(\d+){re.escape(output.suffix)}")
    matches = [match for path in output.parent.glob("*") if (match := pattern.fullmatch(path.name))]
    numbers = {int(match[2]) for match in matches}
    if not numbers:
        raise UserError("no shards found", where=str(output), cure="run spot sample --shard 1/N to --shard N/N first")
    if len(numbers) > 1:
        raise UserError(
            f"found shards of different jobs: N is {' and '.join(map(str, sorted(numbers)))}",
            where=str(output),
            cure="remove the files of the other job",
        )
    of = numbers.pop()
    shards = [Shard(number, of) for number in range(1, of + 1)]
    missing = [str(shard) for shard in shards if not shard.path(output).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {of} shards are missing: {', '.join(missing)}",
            where=str(output),
            cure=f"run spot sample --shard {missing[0]}, or copy its file here",
        )
    return [shard.path(output) for shard in shards]


def _common(paths: Sequence[Path], metas: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and inputs of the whole job; all shards have the same ones, and the same trials and limit.

    Raises:
        UserError: a shard is incomplete, or differs from the first one.
    """
    first: list[dict[str, Any]] = []
    for path, meta in zip(paths, metas, strict=True):
        if not meta.get("complete"):
            shard = meta.get("settings", {}).get("shard", "I/N")
            raise UserError(
                "the shard is incomplete", where=str(path), cure=f"run spot sample --shard {shard} again to resume"
            )
        settings = {name: value for name, value in meta["settings"].items() if name != "shard"}
        own = [settings, meta["inputs"], meta["asked"]]
        first = first or own
        if own != first:
            changed = sorted(
                name
                for before, now in zip(first, own, strict=True)
                for name in before | now
                if before.get(name) != now.get(name)
            )
            raise UserError(
                f"settings differ from {paths[0].name}: {', '.join(changed)}",
                where=str(path),
                cure="sample this shard again with the settings of the others (--fresh replaces its file)",
            )
    return first[0], first[1]
