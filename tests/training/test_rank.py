"""One process among several: its place from the environment, and its error as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from spotcli.errors import DataError, SpotError
from spotcli.training.rank import RankError, Ranks, first_error


def test_ranks_from_the_environment() -> None:
    alone = Ranks.of({})
    assert (alone, alone.is_main, alone.part([1, 2, 3])) == (Ranks(), True, [1, 2, 3])
    second = Ranks.of({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    assert second == Ranks(rank=1, world_size=2, local_rank=1, launched=True)
    assert (second.is_main, second.part([1, 2, 3, 4, 5])) == (False, [2, 4])


def test_first_error_keeps_its_class(tmp_path: Path) -> None:
    assert first_error(tmp_path) is None
    RankError.of(ValueError("later"), 0).write(tmp_path, 0)
    error = RankError.of(DataError("missing field", where="data.jsonl:2", cure="add it"), 1)
    RankError(0.0, error.kind, error.message, error.where, error.cure).write(tmp_path, 1)
    first = first_error(tmp_path)
    assert first is not None
    raised = first.as_error("see the log")
    assert isinstance(raised, DataError)
    assert (raised.message, raised.where, raised.cure) == ("missing field", "data.jsonl:2", "add it")


@pytest.mark.parametrize(("text", "cure"), [("CUDA out of memory", "train.lora"), ("shape mismatch", "see the log")])
def test_other_errors_name_the_rank(text: str, cure: str) -> None:
    raised = RankError.of(RuntimeError(text), 3).as_error("see the log")
    assert type(raised) is SpotError
    assert raised.message == f"rank 3: RuntimeError: {text}"
    assert cure in str(raised.cure)
