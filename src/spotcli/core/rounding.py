"""Rounding of float32 weights to a format with fewer bits, and what a rounding leaves of an update.

A training step at a small learning rate moves a weight by less than half the spacing of bfloat16 numbers around it.
Rounding to nearest then returns the weight to where it started, and the whole update is lost, one weight at a time.
Stochastic rounding takes the farther of the two neighbours with a probability equal to the distance in units of the
spacing. The expected value of the rounded weight is the weight itself, so sums over many weights keep the update.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rounding = Literal["nearest", "stochastic"]

TABLE = 1 << 20
"""Random numbers that are drawn once."""

BLOCK = TABLE
"""Weights whose noise is one part of the table."""

CPU_PIECE = 1 << 18
"""Weights that a processor rounds at once: enough for its threads, few enough for its cache."""

GPU_BLOCKS = 64
"""Blocks that a GPU rounds at once; with one at a time, it would wait for the next launch."""

_LARGE = 1e38

STRIDE = 611_953
"""Places in the table between two blocks; odd, so that many blocks of a tensor have different numbers."""


def weight_seed(seed: int, name: str, step: int) -> int:
    """A seed for one weight at one training step, so that the order of the weights does not change the result."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{name}|{step}".encode()).digest()[:7], "big")


def rounded(
    weight: Tensor,
    dtype: torch.dtype,
    rounding: Rounding,
    seed: int,
    *,
    check: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """The weight in another format.

    Args:
        weight: any shape.
        dtype: the format of the result.
        rounding: only decides where ``dtype`` has fewer bits than the weight; other values are exact.
        seed: of the random choices of stochastic rounding.
        check: look for weights that are too large, which reads all of them first. Without the check they become
            infinite, and a NaN may become a number.
        out: written and returned where the format changes; of the weight's shape, contiguous, in ``dtype``.

    Raises:
        OverflowError: a finite weight is too large for the format.
    """
    import torch

    if not weight.dtype.is_floating_point or dtype.itemsize >= weight.dtype.itemsize or not weight.numel():
        return weight.to(dtype)
    largest = 0.0
    if check:
        limits, largest = torch.finfo(dtype), max(map(abs, map(float, weight.aminmax())))
        # Half a spacing above the largest number, rounding to nearest gives infinity.
        if limits.max * (1 + limits.eps / 4) < largest < float("inf"):
            raise OverflowError(f"{largest:.4g} exceeds the largest {dtype} {limits.max:.4g}")
    result = torch.empty(weight.shape, dtype=dtype, device=weight.device) if out is None else out
    if rounding == "nearest":
        return result.copy_(weight.detach())
    flat_N, result_N = weight.detach().reshape(-1), result.view(-1)
    carries = dtype == torch.bfloat16 and weight.dtype == torch.float32
    blocks = 1 if weight.device.type == "cpu" else GPU_BLOCKS
    for index, start in enumerate(range(0, flat_N.numel(), blocks * BLOCK)):
        part = slice(start, start + blocks * BLOCK)
        noise_N = _noise(len(flat_N[part]), seed + index * blocks * STRIDE, weight.device)
        if carries:
            _carry(flat_N[part], noise_N, result_N[part])
        else:
            result_N[part] = _neighbours(flat_N[part], dtype, noise_N)
    if carries and not largest < _LARGE:  # as it is for a NaN
        # The largest numbers must not become infinite, and a NaN no number.
        return torch.where(torch.isfinite(result), result, weight.to(dtype), out=result)
    return result


def _carry(weight_N: Tensor, noise_N: Tensor, result_N: Tensor) -> None:
    """Round float32 weights to bfloat16, which is the upper half of a float32.

    Uniform noise in the lower half carries into the upper one with the probability that stochastic rounding asks for.

    Args:
        weight_N: float32.
        noise_N: integers that are uniform in [0, 2^16).
        result_N: bfloat16, written.
    """
    import torch

    bits_N = weight_N.view(torch.int32)
    size = CPU_PIECE if weight_N.device.type == "cpu" else len(bits_N)
    sums_N = torch.empty(min(size, len(bits_N)), dtype=torch.int32, device=weight_N.device)
    for start in range(0, len(bits_N), size):
        part = slice(start, start + size)
        sum_N = sums_N[: len(bits_N[part])]
        torch.add(bits_N[part], noise_N[part], out=sum_N)
        result_N[part].copy_(sum_N.bitwise_and_(-(1 << 16)).view(torch.float32))


def _neighbours(weight_N: Tensor, dtype: torch.dtype, noise_N: Tensor) -> Tensor:
    """One of the two neighbours, the farther one with probability (distance to the nearer one) / spacing.

    Args:
        weight_N: float32 or float64.
        dtype: the format of the result.
        noise_N: integers that are uniform in [0, 2^16).
    """
    import torch

    nearest_N = weight_N.to(dtype)
    error_N = weight_N.float() - nearest_N.float()
    # The bit patterns of floating-point numbers of one sign are in the order of their magnitudes.
    away_N = weight_N.abs() > nearest_N.abs()
    other_N = (nearest_N.view(torch.int16) + torch.where(away_N, 1, -1).to(torch.int16)).view(dtype)
    spacing_N = (other_N.float() - nearest_N.float()).abs()
    draw_N = noise_N / (1 << 16)
    # Exact weights have error 0. No choice between a finite number and infinity.
    takes_other_N = (draw_N * spacing_N < error_N.abs()) & torch.isfinite(other_N)
    return torch.where(takes_other_N, other_N, nearest_N)


def _noise(count: int, seed: int, device: torch.device) -> Tensor:
    """Integers that are uniform in [0, 2^16), [count]: a part of one table per block, at places that the seed decides.

    Drawing new numbers for all weights would take longer than rounding them.
    """
    import torch

    table_N = _table(str(device))
    first = seed % TABLE
    if count <= BLOCK:
        return table_N[first : first + count]
    # One row per place in the table; the rows overlap in memory.
    places = (torch.arange(-(-count // BLOCK), device=device) * STRIDE + first) % TABLE
    return table_N.as_strided((TABLE, BLOCK), (1, 1)).index_select(0, places).view(-1)[:count]


@cache
def _table(device: str) -> Tensor:
    """Each integer of [0, 2^16) equally often, in a random order, twice in a row."""
    import torch

    order = torch.randperm(TABLE, generator=torch.Generator().manual_seed(0))
    table_N = (order % (1 << 16)).to(torch.int32)
    return torch.cat([table_N, table_N]).to(device)


@dataclass(frozen=True)
class UpdateSums:
    """Sums over weights that describe what a rounding left of an update; sums of several tensors can be added.

    With u = trained - start and s = saved - start.
    """

    along: float = 0.0
    """Sum of s * u."""
    update: float = 0.0
    """Sum of u * u."""
    saved: float = 0.0
    """Sum of s * s."""
    weights: int = 0
    moved: int = 0
    """Weights with u != 0."""
    moved_saved: int = 0
    """Weights with s != 0."""

    def __add__(self, other: UpdateSums) -> UpdateSums:
        return UpdateSums(
            self.along + other.along,
            self.update + other.update,
            self.saved + other.saved,
            self.weights + other.weights,
            self.moved + other.moved,
            self.moved_saved + other.moved_saved,
        )

    @property
    def surviving(self) -> float:
        """The share of the update that was saved: the length of s along u in units of the length of u; 1 is all.

        Unbiased rounding errors cancel in this sum.
        """
        return self.along / self.update if self.update else 1.0

    @property
    def cosine(self) -> float:
        """The cosine of the angle between s and u; rounding errors of every kind lower it."""
        norms = (self.update * self.saved) ** 0.5
        return float(self.along / norms) if norms else float(self.update == 0)


def update_sums(start: Tensor, trained: Tensor, saved: Tensor) -> UpdateSums:
    """What is left of the update of one tensor.

    Args:
        start: before training, any shape.
        trained: after training, same shape.
        saved: rounded, same shape.
    """
    import torch

    total = UpdateSums()
    flat = [tensor.detach().reshape(-1) for tensor in (start, trained, saved)]
    for first in range(0, flat[0].numel(), BLOCK):
        start_N, trained_N, saved_N = (tensor_N[first : first + BLOCK].float() for tensor_N in flat)
        update_N, left_N = trained_N - start_N, saved_N - start_N
        total += UpdateSums(
            along=float(torch.dot(left_N.double(), update_N.double())),
            update=float(torch.dot(update_N.double(), update_N.double())),
            saved=float(torch.dot(left_N.double(), left_N.double())),
            weights=update_N.numel(),
            moved=int(update_N.count_nonzero()),
            moved_saved=int(left_N.count_nonzero()),
        )
    return total


def half_spacings(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Half the distance to the next larger number of a format, for each weight; rounding to nearest removes smaller
    updates.

    Args:
        weight: any shape; zeros count as the smallest normal number.
        dtype: the format.
    """
    import torch

    limits = torch.finfo(dtype)
    _, exponents = torch.frexp(weight.float().abs().clamp_min(limits.tiny))
    return torch.ldexp(torch.full_like(exponents, limits.eps / 4, dtype=torch.float32), exponents)
