"""Rounding of float32 weights to a format with fewer bits, and what a rounding leaves of an update.

A training step at a small learning rate moves a weight by less than half the spacing of bfloat16 numbers around it.
Rounding to nearest then returns the weight to where it started, and the whole update is lost, one weight at a time.
Stochastic rounding takes the farther of the two neighbours with a probability equal to the distance in units of the
spacing. The expected value of the rounded weight is the weight itself, so sums over many weights keep the update.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rounding = Literal["nearest", "stochastic"]

BLOCK = 1 << 24
"""Weights that are rounded at once; the temporary tensors of one block take 400 MB."""


def tensor_seed(seed: int, name: str) -> int:
    """A seed for one tensor, so that the order of the tensors does not change the result."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:7], "big")


def rounded(weight: Tensor, dtype: torch.dtype, rounding: Rounding, seed: int) -> Tensor:
    """The weight in another format.

    Args:
        weight: any shape.
        dtype: the format of the result.
        rounding: only decides where ``dtype`` has fewer bits than the weight; other values are exact.
        seed: of the random choices of stochastic rounding.

    Raises:
        OverflowError: a finite weight is too large for the format.
    """
    import torch

    if dtype.itemsize >= weight.dtype.itemsize or not weight.dtype.is_floating_point or rounding == "nearest":
        result = weight.to(dtype)
    else:
        generator = torch.Generator(weight.device).manual_seed(seed)
        result = torch.empty_like(weight, dtype=dtype)
        flat_N, result_N = weight.detach().reshape(-1), result.view(-1)
        for start in range(0, flat_N.numel(), BLOCK):
            part = slice(start, start + BLOCK)
            result_N[part] = _stochastic(flat_N[part], dtype, generator)
    if not torch.isfinite(result).all() and torch.isfinite(weight).all():
        raise OverflowError(f"{float(weight.abs().max()):.4g} exceeds the largest {dtype} {torch.finfo(dtype).max:.4g}")
    return result


def _stochastic(weight_N: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """The nearest number, or the neighbour on the other side of the weight with probability error / spacing."""
    import torch

    nearest_N = weight_N.to(dtype)
    error_N = weight_N.float() - nearest_N.float()
    # The bit patterns of floating-point numbers of one sign are in the order of their magnitudes.
    away_N = weight_N.abs() > nearest_N.abs()
    bits_N = nearest_N.view(torch.int16)
    other_N = (bits_N + torch.where(away_N, 1, -1).to(torch.int16)).view(dtype)
    spacing_N = (other_N.float() - nearest_N.float()).abs()
    draw_N = torch.rand(weight_N.shape, generator=generator, device=weight_N.device)
    # Exact weights have error 0. No choice between a finite number and infinity.
    takes_other_N = (draw_N * spacing_N < error_N.abs()) & torch.isfinite(other_N)
    return torch.where(takes_other_N, other_N, nearest_N)


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
