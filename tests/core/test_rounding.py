"""Rounding to fewer bits: the neighbours, the expected value, the edges of a format, and what is left of an update."""

from __future__ import annotations

import pytest
import torch

from spotcli.core import rounding
from spotcli.core.rounding import half_spacings, rounded, update_sums, weight_seed

# bfloat16 has 8 significant bits: the spacing is 2^-7 = 0.0078125 from 1 to 2.
SPACING = 2.0**-7


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("dtype", "spacing"), [(torch.bfloat16, 2.0**-7), (torch.float16, 2.0**-10)])
def test_stochastic_rounding_keeps_the_mean(sign: float, dtype: torch.dtype, spacing: float) -> None:
    """A quarter of a spacing above 1: three of four weights become 1, one becomes 1 + spacing."""
    weight = torch.full((100_000,), sign * (1 + spacing / 4))
    result = rounded(weight, dtype, "stochastic", seed=0).float()
    assert set(result.abs().tolist()) == {1.0, 1 + spacing}
    # The standard deviation of the share is sqrt(0.25 * 0.75 / 100,000) = 0.0014.
    assert float((result.abs() > 1).float().mean()) == pytest.approx(0.25, abs=0.007)
    assert set(rounded(weight, dtype, "nearest", seed=0).float().abs().tolist()) == {1.0}


def test_stochastic_rounding_takes_one_of_the_two_neighbours() -> None:
    weight = torch.randn(100_000) * torch.logspace(-8, 8, 100_000)
    result = rounded(weight, torch.bfloat16, "stochastic", seed=1).float()
    assert bool(((result - weight).abs() <= 2 * half_spacings(weight, torch.bfloat16)).all())
    assert float((result != rounded(weight, torch.bfloat16, "nearest", seed=1).float()).float().mean()) > 0.2


def test_weights_that_the_format_has_stay_as_they_are() -> None:
    exact = torch.randn(10_000).bfloat16()
    edges = torch.tensor([0.0, -0.0, 1.0, -2.5, float("inf"), -float("inf"), float("nan")])
    weight = torch.cat([exact.float(), edges])
    result = rounded(weight, torch.bfloat16, "stochastic", seed=0)
    assert torch.equal(result.view(torch.int16), weight.bfloat16().view(torch.int16))
    assert torch.equal(rounded(exact, torch.bfloat16, "stochastic", seed=0), exact)
    assert torch.equal(rounded(exact, torch.float32, "stochastic", seed=0), exact.float())


def test_largest_numbers_do_not_become_infinite() -> None:
    largest = torch.full((1000,), torch.finfo(torch.bfloat16).max) * (1 + 2.0**-12)
    assert bool(torch.isfinite(rounded(largest, torch.bfloat16, "stochastic", seed=0)).all())
    with pytest.raises(OverflowError, match=r"7e\+04 exceeds the largest torch.float16 6.55e\+04"):
        rounded(torch.tensor([1.0, 7e4]), torch.float16, "stochastic", seed=0)


def test_a_seed_repeats_the_choices() -> None:
    weight = torch.randn(5000)
    first, second = (rounded(weight, torch.bfloat16, "stochastic", seed=weight_seed(0, "a", 1)) for _ in range(2))
    other = rounded(weight, torch.bfloat16, "stochastic", seed=weight_seed(0, "b", 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert weight_seed(0, "a", 1) != weight_seed(0, "a", 2)


def test_noise_of_several_blocks_at_once_is_that_of_each_block() -> None:
    """A GPU rounds many blocks at once; the saved weights must not depend on it."""
    device, seed = torch.device("cpu"), 12_345_678_901
    count = 3 * rounding.BLOCK + 17
    parts = [
        rounding._noise(min(rounding.BLOCK, count - start), seed + index * rounding.STRIDE, device)
        for index, start in enumerate(range(0, count, rounding.BLOCK))
    ]
    assert torch.equal(rounding._noise(count, seed, device), torch.cat(parts))


def test_the_pieces_of_a_processor_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(2505)
    whole = rounded(weight, torch.bfloat16, "stochastic", seed=5)
    monkeypatch.setattr(rounding, "CPU_PIECE", 1000)  # two pieces and a half
    assert torch.equal(rounded(weight, torch.bfloat16, "stochastic", seed=5), whole)


def test_without_a_check_no_number_is_read() -> None:
    weight = torch.tensor([1.0, 1.003, -2.5, float("inf"), float("nan")])
    checked = rounded(weight, torch.bfloat16, "stochastic", seed=5)
    unchecked = rounded(weight, torch.bfloat16, "stochastic", seed=5, check=False)
    assert torch.equal(checked.view(torch.int16), unchecked.view(torch.int16))
    empty = rounded(torch.empty(5, device="meta"), torch.bfloat16, "stochastic", seed=5, check=False)
    assert empty.shape == (5,)  # reading a number of the meta device is an error


@pytest.mark.parametrize("how", ["nearest", "stochastic"])
def test_a_given_tensor_is_written(how: rounding.Rounding) -> None:
    weight = torch.tensor([1.003, -2.5, float("inf"), float("nan"), torch.finfo(torch.bfloat16).max])
    out = torch.zeros(5, dtype=torch.bfloat16)
    assert rounded(weight, torch.bfloat16, how, seed=5, out=out) is out
    assert torch.equal(out.view(torch.int16), rounded(weight, torch.bfloat16, how, seed=5).view(torch.int16))


def test_what_is_left_of_an_update() -> None:
    """Four weights of 1; two move by a quarter of a spacing, one by a whole one, one stays."""
    start = torch.ones(4)
    trained = start + torch.tensor([SPACING / 4, SPACING / 4, SPACING, 0.0])
    sums = update_sums(start, trained, rounded(trained, torch.bfloat16, "nearest", seed=0))
    # In spacings, u = (1/4, 1/4, 1, 0) and s = (0, 0, 1, 0): s * u = 1, u * u = 1/16 + 1/16 + 1 = 9/8, s * s = 1.
    assert sums.surviving == pytest.approx(8 / 9)
    assert sums.cosine == pytest.approx(1 / (9 / 8) ** 0.5)
    assert (sums.weights, sums.moved, sums.moved_saved) == (4, 3, 1)
    both = sums + update_sums(start, start, start)
    assert (both.weights, both.surviving) == (8, sums.surviving)
    assert update_sums(start, start, start).surviving == 1.0


def test_half_of_the_spacing() -> None:
    # 1 to 2: 2^-7 / 2. Below 1 the spacing is half as large. 300 is between 2^8 and 2^9: 2^8 * 2^-7 / 2 = 1.
    halves = half_spacings(torch.tensor([1.0, 1.5, 0.99, -300.0]), torch.bfloat16)
    assert halves.tolist() == [SPACING / 2, SPACING / 2, SPACING / 4, 1.0]
