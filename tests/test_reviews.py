from __future__ import annotations

from typing import Any

import pytest

from spotcli.records import Pair
from spotcli.reviews import REVIEWS, reviewed_rows, row_key


def test_row_key_is_id_and_trial() -> None:
    assert row_key({"id": "a", "trial": 2}) == ("a", 2)
    assert row_key({"id": "a"}) == ("a", 0)
    with pytest.raises(KeyError):
        row_key({"trial": 1})


def test_reviewed_rows_are_keyed_by_id_and_trial() -> None:
    accepted = {"id": "a", "trial": 1, "review": "accept"}
    rejected = {"id": "b", "review": "reject"}
    rows: list[dict[str, Any]] = [{"id": "a"}, accepted, rejected, {"id": "c", "review": None}]
    assert reviewed_rows(rows) == {("a", 1): accepted, ("b", 0): rejected}


@pytest.mark.parametrize("review", REVIEWS)
def test_pair_accepts_every_review(review: str) -> None:
    pair = Pair.model_validate({"prompt": "?", "rejected": "a", "chosen": "b", "review": review})
    assert pair.review == review
