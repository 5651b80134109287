"""Sharded sampling: shards are disjoint and complete, and merge into one file."""

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
    """A folder with problems, and the commands that run in it."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model = model
        self.folder = folder
        rows = [
            {"id": f"p{index}", "prompt": f"What is {index} + {index}?", "answer": str(2 * index)}
            for index in range(NUMBER)
        ]
        write_rows(folder / "problems.jsonl", rows)

    def recipe(self, **keys: Any) -> Recipe:
        # Alone in its batch, an answer does not depend on the other requests.
        options = {"sample.max_new_tokens": 4, "sample.batch_size": 1, "sample.dtype": "float32"}
        return load(
            None, None, options | {"model": str(self.model)} | {f"sample.{key}": value for key, value in keys.items()}
        )

    def shard(self, number: int, of: int, **keys: Any) -> SampleSummary:
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
def test_every_problem_is_in_exactly_one_shard(of: int) -> None:
    ids = [f"problem-{index}" for index in range(2000)]
    shards = [{id for id in ids if Shard(number, of).has(id)} for number in range(1, of + 1)]
    assert sum(map(len, shards)) == len(set.union(*shards)) == 2000
    # A binomial share of 2000: at most 4 standard deviations from the mean.
    assert all(abs(len(shard) - 2000 / of) <= 4 * (2000 / of) ** 0.5 for shard in shards)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/2/3", "1/0"])
def test_invalid_shards_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"invalid shard .*: use I/N with 1 <= I <= N\n  cure: --shard 2/8"):
        Shard.parse(text)
    assert str(Shard.parse("2/8")) == "2/8"


def test_merged_shards_equal_the_file_of_the_undivided_job(job: Job) -> None:
    shards = [job.shard(number, 3, trials=2) for number in (1, 2, 3)]
    assert sum(shard.problems for shard in shards) == NUMBER
    merged = job.merge()
    assert (merged.shards, merged.problems, merged.answers) == (3, NUMBER, 2 * NUMBER)
    whole = job.whole(trials=2, output="whole.jsonl")
    assert len(job.rows()) == len(as_set(job.rows())) == 2 * NUMBER
    assert as_set(job.rows()) == as_set(job.rows("whole.jsonl"))
    assert as_set(job.rows("samples.rates.jsonl")) == as_set(job.rows("whole.rates.jsonl"))
    metas = [outputs.read_meta(job.folder / f"{name}.jsonl") for name in ("samples", "whole")]
    for entry in ("settings", "inputs", "asked", "complete"):
        assert metas[0][entry] == metas[1][entry], entry
    # Complete shards have no failures, no remaining and no ungraded answers.
    assert metas[0]["counts"] | {"failed": 0, "remaining": 0, "ungraded": 0} == metas[1]["counts"]
    assert metas[0]["engine"]["requested"] == metas[1]["engine"]["requested"]
    assert (merged.right, merged.wrong, merged.undecided, merged.truncated) == (
        whole.right, whole.wrong, whole.undecided, whole.truncated,
    )  # fmt: skip
    # The undivided job has nothing left to answer.
    assert job.whole(trials=2).new_answers == 0


def test_a_merge_can_be_repeated_also_after_more_trials(job: Job) -> None:
    for number in (1, 2):
        job.shard(number, 2)
    job.merge()
    once = (job.folder / "samples.jsonl").read_bytes()
    assert job.merge().answers == NUMBER
    assert (job.folder / "samples.jsonl").read_bytes() == once

    # As after a stop in the middle of a line.
    (job.folder / "samples.jsonl").write_bytes(once[: len(once) // 2])
    assert job.merge().answers == NUMBER
    assert (job.folder / "samples.jsonl").read_bytes() == once

    for number in (1, 2):
        assert job.shard(number, 2, trials=2).new_answers > 0
    merged = job.merge()
    assert merged.answers == 2 * NUMBER
    assert merged.pass_rate is not None
    assert (job.folder / "samples.jsonl").read_bytes().startswith(once)

    # Trials that only the merged file has are kept.
    assert job.whole(trials=3).new_answers == NUMBER
    assert job.merge().answers == 3 * NUMBER


def test_a_shard_may_have_no_problem(job: Job) -> None:
    shards = [job.shard(number, 30) for number in range(1, 31)]
    assert 0 in [shard.problems for shard in shards]
    assert job.merge().problems == NUMBER


def test_missing_shards_are_named(job: Job) -> None:
    assert "samples.jsonl: no shards found\n  cure: run spot sample --shard 1/N" in job.refused()
    job.shard(2, 3)
    assert "2 of 3 shards are missing: 1/3, 3/3\n  cure: run spot sample --shard 1/3" in job.refused()
    job.shard(1, 2)
    assert "found shards of different jobs: N is 2 and 3" in job.refused()
    assert not (job.folder / "samples.jsonl").exists()


def test_an_incomplete_shard_is_named(job: Job) -> None:
    for number in (1, 2):
        job.shard(number, 2)
    path = job.folder / "samples.shard-2-of-2.jsonl"
    meta = outputs.read_meta(path)
    jsonl.write_json(outputs.meta_path(path), meta | {"complete": False})
    message = job.refused()
    assert message == f"{path}: the shard is incomplete\n  cure: run spot sample --shard 2/2 again to resume"
    outputs.meta_path(path).unlink()
    assert f"{path}: the shard is incomplete" in job.refused()


def test_shards_with_different_settings_are_refused(job: Job) -> None:
    path = job.folder / "samples.shard-2-of-2.jsonl"
    job.shard(1, 2)
    for keys, named in (
        ({"temperature": 0.2, "top_p": 0.5}, "temperature, top_p"),
        ({"trials": 2}, "trials"),
        ({"limit": 3}, "limit"),
        ({"system": "Be brief."}, "system"),
    ):
        job.shard(2, 2, **keys)
        message = job.refused()
        assert message.startswith(f"{path}: settings differ from samples.shard-1-of-2.jsonl: {named}\n  cure:")
        outputs.set_aside(path)
    # One more row in the problems: the digest of the file differs.
    with (job.folder / "problems.jsonl").open("a") as file:
        file.write('{"id": "more", "prompt": "more"}\n')
    job.shard(2, 2)
    assert "settings differ from samples.shard-1-of-2.jsonl: problems.jsonl" in job.refused()


def test_a_copied_shard_is_refused(job: Job) -> None:
    for number in (1, 2):
        job.shard(number, 2)
    shutil.copy(job.folder / "samples.shard-1-of-2.jsonl", job.folder / "samples.shard-2-of-2.jsonl")
    assert "another shard has it too\n  cure: sample the shards again with --fresh" in job.refused()
    assert outputs.read_meta(job.folder / "samples.jsonl")["complete"] is False


def test_counts_of_decontaminated_shards_add_up(job: Job) -> None:
    write_rows(job.folder / "eval.jsonl", [{"prompt": f"What is {index} + {index}?"} for index in (3, 4, 5)])
    shards = [job.shard(number, 2, decontaminate=["eval.jsonl"]) for number in (1, 2)]
    assert sum(shard.decontaminated.get("eval.jsonl", 0) for shard in shards) == 3
    merged = job.merge()
    assert (merged.problems, merged.decontaminated) == (NUMBER - 3, {"eval.jsonl": 3})


def test_the_command_line(job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(job.folder)
    common = ["sample", "--model", str(job.model), "--max-new-tokens", "4", "--json"]
    answers = 0
    for shard in ("1/2", "2/2"):
        app([*common, "--shard", shard], standalone_mode=False)
        answers += json.loads(capsys.readouterr().out)["answers"]
    app(["sample", "--merge", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["answers"] == answers == NUMBER
