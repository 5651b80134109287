"""The exact interval of a proportion."""

from __future__ import annotations

from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.stats import exact_interval

near: Any = pytest.approx


def test_the_exact_interval_of_a_proportion() -> None:
    # 7 of 100, the table of Clopper and Pearson: 2.9 to 13.9 %. Wilson's is 3.4 to 13.7 %.
    assert exact_interval(7, 100) == (near(0.0286, abs=5e-5), near(0.1389, abs=5e-5))
    # No hit: (1 - high)^10 = 0.025, so high = 1 - 0.025^(1/10).
    assert exact_interval(0, 10) == (0.0, near(1 - 0.025**0.1))
    assert exact_interval(10, 10) == (near(0.025**0.1), 1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        exact_interval(3, 2)


@given(st.integers(1, 40).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_the_bounds_of_the_exact_interval_have_its_tails(counts: tuple[int, int]) -> None:
    hits, trials = counts
    low, high = exact_interval(hits, trials)

    def chance(share: float, values: range) -> float:
        return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in values)

    assert 0 <= low <= hits / trials <= high <= 1
    if hits:
        assert chance(low, range(hits, trials + 1)) == near(0.025, abs=1e-9)
    if hits < trials:
        assert chance(high, range(hits + 1)) == near(0.025, abs=1e-9)
