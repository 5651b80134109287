"""One sampling job over several machines: each takes the same part of the problems whenever it is asked.

spot sample --shard 2/8         the second of eight parts, into samples.shard-2-of-8.jsonl
spot sample --merge             the eight parts, into samples.jsonl
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.errors import RecipeError, UserError
from spotcli.problems.seen import Seen
from spotcli.problems.sources import BATCH
from spotcli.records import key_hash
from spotcli.sampling.pass_rates import pass_rates

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
    problems: int
    decontaminated: dict[str, int]
    answers: int
    right: int
    wrong: int
    undecided: int
    cut: int
    pass_rate: dict[str, float] | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def merge(output: Path, *, fresh: bool = False) -> MergeSummary:
    """Put the parts of a job into one file that is like one of an undivided job.

    Answers that are in the file already stay, so a merge can be stopped and made again, also after new trials.

    Raises:
        UserError: a part is missing, is not complete, or was made with other settings than the first; the output is
            there already and was made in another way.
    """
    parts = _parts(output)
    metas = [outputs.read_meta(path) for path in parts]
    settings, inputs = _common(parts, metas)
    there, verdicts, cut = Seen(), Counter[str](), 0

    def see(row: dict[str, Any]) -> bool:
        nonlocal cut
        if not there.add(key_hash(row["id"], row.get("trial", 0))):
            return False
        verdicts[row["verdict"]] += 1
        cut += row["finish_reason"] == "length"
        return True

    with outputs.Output(
        output, command="spot sample", settings=settings, inputs=inputs, scan=see, fresh=fresh
    ) as merged:
        facts = {name: metas[0][name] for name in ("asked", "engine") if name in metas[0]}
        merged.note(**facts, merged=[path.name for path in parts], complete=False)
        in_parts = Seen()
        for path in parts:
            rows = jsonl.rows(path)
            while some := list(islice(rows, BATCH)):
                for row in some:
                    if not in_parts.add(key_hash(row["id"], row.get("trial", 0))):
                        raise UserError(
                            f"{row['id']!r} stands in two parts", where=str(path), cure="make the parts anew"
                        )
                merged.append(row for row in some if see(row))
        counted = [meta["counts"] for meta in metas]
        summary = MergeSummary(
            path=str(output),
            parts=len(parts),
            problems=sum(counts["problems"] for counts in counted),
            decontaminated=dict(sum((Counter(counts["decontaminated"]) for counts in counted), Counter[str]())),
            answers=verdicts.total(),
            right=verdicts["right"],
            wrong=verdicts["wrong"],
            undecided=verdicts["undecided"],
            cut=cut,
            pass_rate=pass_rates(output) if any(counts["pass_rate"] for counts in counted) else None,
        )
        merged.finish({name: value for name, value in summary.as_dict().items() if name not in ("path", "parts")})
    return summary


def _parts(output: Path) -> list[Path]:
    """All parts of the job, in order.

    Raises:
        UserError: there is none, or one is missing.
    """
    pattern = re.compile(rf"{re.escape(output.stem)}\.shard-(\d+)-of-(\d+){re.escape(output.suffix)}")
    found = [match for path in output.parent.glob("*") if (match := pattern.fullmatch(path.name))]
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
    """Settings and inputs of the whole job; all parts were asked for as many problems and trials.

    Raises:
        UserError: a part is not complete, or differs.
    """
    first: list[dict[str, Any]] = []
    for path, meta in zip(parts, metas, strict=True):
        if not meta.get("complete"):
            shard = meta.get("settings", {}).get("shard", "i/n")
            raise UserError("this part is not complete", where=str(path), cure=f"spot sample --shard {shard} goes on")
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
                f"this part and {parts[0].name} differ in {', '.join(changed)}",
                where=str(path),
                cure="make it with the settings of the others (--fresh where it exists)",
            )
    return first[0], first[1]
