"""One job over several machines: parts that are disjoint and complete, and one file out of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl, outputs
from spotcli.cli import app
from spotcli.errors import RecipeError, UserError
from spotcli.recipe import Recipe
from spotcli.recipe_yaml import load
from spotcli.sampling.shards import MergeSummary, Shard, merge
from spotcli.stages.sample import SampleSummary, sample
from tests.conftest import write_rows

NUMBER = 12


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Job:
    return Job(tiny_model, tmp_path)


class Job:
    """A folder with problems, and what is run in it."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model = model
        self.folder = folder
        rows = [{"id": f"p{at}", "prompt": f"What is {at} + {at}?", "answer": str(2 * at)} for at in range(NUMBER)]
        write_rows(folder / "problems.jsonl", rows)

    def recipe(self, **keys: Any) -> Recipe:
        # Alone in its batch, an answer is the same whatever else is asked.
        options = {"sample.max_new_tokens": 4, "sample.batch_size": 1, "sample.dtype": "float32"}
        return load(
            None, None, options | {"model": str(self.model)} | {f"sample.{key}": value for key, value in keys.items()}
        )

    def part(self, number: int, of: int, **keys: Any) -> SampleSummary:
        return sample(self.recipe(**keys), folder=self.folder, shard=Shard(number, of))

    def whole(self, **keys: Any) -> SampleSummary:
        return sample(self.recipe(**keys), folder=self.folder)

    def merge(self, output: str = "samples.jsonl") -> MergeSummary:
        return merge(self.folder / output)

    def refused(self) -> str:
        with pytest.raises(UserError) as caught:
            self.merge()
        return str(caught.value)

    def rows(self, output: str = "samples.jsonl") -> list[dict[str, Any]]:
        return list(jsonl.rows(self.folder / output))


def as_set(rows: list[dict[str, Any]]) -> set[str]:
    return {json.dumps(row, sort_keys=True) for row in rows}


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_every_problem_is_in_one_part(of: int) -> None:
    ids = [f"problem-{at}" for at in range(2000)]
    parts = [{id for id in ids if Shard(number, of).has(id)} for number in range(1, of + 1)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 2000
    # A binomial share of 2000: at most 4 standard deviations from the mean.
    assert all(abs(len(part) - 2000 / of) <= 4 * (2000 / of) ** 0.5 for part in parts)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/2/3", "1/0"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is no part of a job\n  cure: --shard 2/8"):
        Shard.parse(text)
    assert str(Shard.parse("2/8")) == "2/8"


def test_merged_parts_are_the_file_of_the_undivided_job(job: Job) -> None:
    parts = [job.part(number, 3, trials=2) for number in (1, 2, 3)]
    assert sum(part.problems for part in parts) == NUMBER
    merged = job.merge()
    assert (merged.parts, merged.problems, merged.answers) == (3, NUMBER, 2 * NUMBER)
    whole = job.whole(trials=2, output="whole.jsonl")
    assert len(job.rows()) == len(as_set(job.rows())) == 2 * NUMBER
    assert as_set(job.rows()) == as_set(job.rows("whole.jsonl"))
    assert as_set(job.rows("samples.rates.jsonl")) == as_set(job.rows("whole.rates.jsonl"))
    metas = [outputs.read_meta(job.folder / f"{name}.jsonl") for name in ("samples", "whole")]
    for part in ("settings", "inputs", "asked", "complete"):
        assert metas[0][part] == metas[1][part], part
    # Nothing failed and nothing is left of parts that are complete.
    assert metas[0]["counts"] | {"failed": 0, "left": 0} == metas[1]["counts"]
    assert metas[0]["engine"]["requested"] == metas[1]["engine"]["requested"]
    assert (merged.right, merged.wrong, merged.undecided, merged.cut) == (
        whole.right, whole.wrong, whole.undecided, whole.cut,
    )  # fmt: skip
    # The undivided job finds everything done.
    assert job.whole(trials=2).new == 0


def test_a_merge_can_be_made_again_and_after_new_trials(job: Job) -> None:
    for number in (1, 2):
        job.part(number, 2)
    job.merge()
    once = (job.folder / "samples.jsonl").read_bytes()
    assert job.merge().answers == NUMBER
    assert (job.folder / "samples.jsonl").read_bytes() == once

    # Stopped in the middle of a line.
    (job.folder / "samples.jsonl").write_bytes(once[: len(once) // 2])
    assert job.merge().answers == NUMBER
    assert (job.folder / "samples.jsonl").read_bytes() == once

    for number in (1, 2):
        assert job.part(number, 2, trials=2).new > 0
    merged = job.merge()
    assert merged.answers == 2 * NUMBER
    assert merged.pass_rate is not None
    assert (job.folder / "samples.jsonl").read_bytes().startswith(once)

    # Trials that only the merged file has are no part's, and are paid for.
    assert job.whole(trials=3).new == NUMBER
    assert job.merge().answers == 3 * NUMBER


def test_a_part_may_have_no_problem(job: Job) -> None:
    parts = [job.part(number, 30) for number in range(1, 31)]
    assert 0 in [part.problems for part in parts]
    assert job.merge().problems == NUMBER


def test_parts_that_are_not_all_there_are_named(job: Job) -> None:
    assert "samples.jsonl: there are no parts\n  cure: spot sample --shard 1/N" in job.refused()
    job.part(2, 3)
    assert "2 of 3 parts are missing: 1/3, 3/3\n  cure: spot sample --shard 1/3" in job.refused()
    job.part(1, 2)
    assert "parts of jobs of [2, 3] parts stand beside each other" in job.refused()
    assert not (job.folder / "samples.jsonl").exists()


def test_a_part_that_is_not_complete_is_named(job: Job) -> None:
    for number in (1, 2):
        job.part(number, 2)
    part = job.folder / "samples.shard-2-of-2.jsonl"
    meta = outputs.read_meta(part)
    jsonl.write_json(outputs.meta_path(part), meta | {"complete": False})
    said = job.refused()
    assert said == f"{part}: this part is not complete\n  cure: spot sample --shard 2/2 goes on"
    outputs.meta_path(part).unlink()
    assert f"{part}: this part is not complete" in job.refused()


def test_parts_of_different_jobs_are_refused(job: Job) -> None:
    part = job.folder / "samples.shard-2-of-2.jsonl"
    job.part(1, 2)
    for keys, named in (
        ({"temperature": 0.2, "top_p": 0.5}, "temperature, top_p"),
        ({"trials": 2}, "trials"),
        ({"limit": 3}, "limit"),
        ({"system": "Be brief."}, "system"),
    ):
        job.part(2, 2, **keys)
        said = job.refused()
        assert said.startswith(f"{part}: this part and samples.shard-1-of-2.jsonl differ in {named}\n  cure:")
        outputs.set_aside(part)
    # A row more in the problems: the digest of the file differs.
    with (job.folder / "problems.jsonl").open("a") as file:
        file.write('{"id": "more", "prompt": "more"}\n')
    job.part(2, 2)
    assert "differ in problems.jsonl" in job.refused()


def test_a_copied_part_is_noticed(job: Job) -> None:
    for number in (1, 2):
        job.part(number, 2)
    shutil.copy(job.folder / "samples.shard-1-of-2.jsonl", job.folder / "samples.shard-2-of-2.jsonl")
    assert "stands in two parts\n  cure: make the parts anew" in job.refused()
    assert outputs.read_meta(job.folder / "samples.jsonl")["complete"] is False


def test_decontaminated_parts_add_up(job: Job) -> None:
    write_rows(job.folder / "eval.jsonl", [{"prompt": f"What is {at} + {at}?"} for at in (3, 4, 5)])
    parts = [job.part(number, 2, decontaminate=["eval.jsonl"]) for number in (1, 2)]
    assert sum(part.decontaminated.get("eval.jsonl", 0) for part in parts) == 3
    merged = job.merge()
    assert (merged.problems, merged.decontaminated) == (NUMBER - 3, {"eval.jsonl": 3})


def test_at_the_command_line(job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(job.folder)
    common = ["sample", "--model", str(job.model), "--max-new-tokens", "4", "--json"]
    answers = 0
    for part in ("1/2", "2/2"):
        app([*common, "--shard", part], standalone_mode=False)
        answers += json.loads(capsys.readouterr().out)["answers"]
    app(["sample", "--merge", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["answers"] == answers == NUMBER
