"""One sampling job over several machines: each takes the same part of the problems whenever it is asked.

spot sample --shard 2/8         the second of eight parts, into samples.shard-2-of-8.jsonl
spot sample --merge             the eight parts, into samples.jsonl
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.errors import RecipeError, UserError
from spotcli.records import key_hash

_FORM = re.compile(r"([1-9]\d*)/([1-9]\d*)")


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``of`` parts, from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/8``.

        Raises:
            RecipeError: it has another form, or there is no such part.
        """
        match = _FORM.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise RecipeError(
                f"'{text}' is no part of a job", where="--shard", cure="--shard 2/8 is the second of eight parts"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, problem_id: str) -> bool:
        """By the id alone, so that the order of the problems and the machine do not matter."""
        return key_hash(problem_id) % self.of == self.number - 1

    def path(self, output: Path) -> Path:
        return output.with_name(f"{output.stem}.shard-{self.number}-of-{self.of}{output.suffix}")


@dataclass(frozen=True)
class MergeSummary:
    """What ``spot sample --merge`` put together."""

    path: str
    parts: int
    answers: int
    right: int
    wrong: int
    undecided: int

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def merge(output: Path, *, fresh: bool = False) -> MergeSummary:
    """Put the parts of a job into one file that is like one of an undivided job.

    Raises:
        UserError: a part is missing, is not complete, or was made with other settings than the first; the output is
            there already and was made in another way.
    """
    parts = _parts(output)
    metas = [jsonl.read_meta(path) for path in parts]
    settings, inputs = _common(parts, metas)
    verdicts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        seen: set[int] = set()
        for path in parts:
            for row in jsonl.rows(path):
                key = key_hash(row["id"], row.get("trial", 0))
                if key in seen:
                    raise UserError(f"{row['id']!r} stands in two parts", where=str(path), cure="make the parts anew")
                seen.add(key)
                verdicts[row["verdict"]] += 1
                yield row

    with jsonl.Output(
        output, command="spot sample", settings=settings, inputs=inputs, scan=lambda row: None, fresh=fresh
    ) as merged:
        merged.replace(rows())
        counts = {"answers": verdicts.total(), **verdicts}
        problems = sum(meta["counts"]["problems"] for meta in metas)
        merged.note(engine=metas[0].get("engine"), merged=[path.name for path in parts])
        merged.finish({"problems": problems, **counts})
    return MergeSummary(
        path=str(output),
        parts=len(parts),
        answers=verdicts.total(),
        right=verdicts["right"],
        wrong=verdicts["wrong"],
        undecided=verdicts["undecided"],
    )


def _parts(output: Path) -> list[Path]:
    """All parts of the job, in order.

    Raises:
        UserError: there is none, or one is missing.
    """
    pattern = re.compile(rf"{re.escape(output.stem)}\.shard-(\d+)-of-(\d+){re.escape(output.suffix)}")
    found = [match for path in output.parent.iterdir() if (match := pattern.fullmatch(path.name))]
    numbers = {int(match[2]) for match in found}
    if len(numbers) != 1:
        what = f"parts of jobs of {sorted(numbers)} parts stand beside each other" if numbers else "there are no parts"
        raise UserError(what, where=str(output), cure="spot sample --shard 1/N ... N/N makes them")
    shards = [Shard(number, of) for of in numbers for number in range(1, of + 1)]
    missing = [str(shard) for shard in shards if not shard.path(output).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(shards)} parts are missing: {', '.join(missing)}",
            where=str(output),
            cure=f"spot sample --shard {missing[0]}, or copy its file here",
        )
    return [shard.path(output) for shard in shards]


def _common(parts: list[Path], metas: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and inputs of the whole job.

    Raises:
        UserError: a part is not complete, or differs.
    """
    first: tuple[dict[str, Any], dict[str, Any]] | None = None
    for path, meta in zip(parts, metas, strict=True):
        if not meta.get("complete"):
            shard = meta.get("settings", {}).get("shard", "i/n")
            raise UserError("this part is not complete", where=str(path), cure=f"spot sample --shard {shard} goes on")
        own = {name: value for name, value in meta["settings"].items() if name != "shard"}, meta["inputs"]
        first = first or own
        if own != first:
            raise UserError(
                f"this part was made with other settings than {parts[0].name}",
                where=str(path),
                cure="make it anew with --fresh",
            )
    assert first is not None
    return first
