"""Means per token with intervals clustered by prompt."""

from __future__ import annotations

from math import sqrt

import pytest

from spotcli.core.stats.per_token import mean_per_token


def test_the_mean_and_its_error_are_worked_by_hand() -> None:
    # mean = (1 + 5) / (2 + 4) = 1; residuals 1 - 2 = -1 and 5 - 4 = 1; error = sqrt(2 / 1 * 2) / 6 = 1/3
    result = mean_per_token([1.0, 5.0], [2, 4])
    assert (result.mean, result.prompts, result.tokens) == (1.0, 2, 6)
    assert result.error == pytest.approx(1 / 3)
    # Student's t for 95 % and one degree of freedom is 12.706.
    assert result.high == pytest.approx(1 + 12.7062 / 3, abs=1e-3)
    assert result.low == 0


def test_equal_rates_have_no_error_whatever_the_lengths() -> None:
    result = mean_per_token([0.2, 2.0, 20.0], [1, 10, 100])
    assert result.mean == pytest.approx(0.2)
    assert result.error == pytest.approx(0, abs=1e-12)


def test_answers_of_equal_length_have_the_error_of_the_prompts_means() -> None:
    means = [0.1, 0.4, 0.3, 0.2]
    result = mean_per_token([mean * 8 for mean in means], [8] * 4)
    spread = sum((mean - 0.25) ** 2 for mean in means)
    assert result.error == pytest.approx(sqrt(spread / (4 * 3)))


def test_one_prompt_has_no_interval() -> None:
    result = mean_per_token([3.0], [6])
    assert (result.mean, result.low, result.high, result.error) == (0.5, None, None, None)


def test_no_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        mean_per_token([], [])
