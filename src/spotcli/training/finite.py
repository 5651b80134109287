"""Numbers that are not finite: where they are, and the error that stops a run because of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from spotcli.errors import UserError
from spotcli.training import keys
from spotcli.training.run_folder import RunFolder

if TYPE_CHECKING:
    from spotcli.training.plan import TrainPlan

_NAMED = 3
"""Tensors that an error names."""


def not_finite_weights(model: Any) -> list[str]:
    """The names of the weights that have NaN or infinite values, in this process's part of the model."""
    names = []
    for name, weight in model.named_parameters():
        own = getattr(weight, "ds_tensor", weight)  # ZeRO-3 divides each weight among the processes
        own = own.to_local() if hasattr(own, "to_local") else own  # and so does FSDP
        if own.is_floating_point() and not bool(own.detach().isfinite().all()):
            names.append(name)
    return names


def check_step(plan: TrainPlan, model: Any, step: int, loss: float, norm: float | None) -> None:
    """Check a training step before its gradients change the weights.

    Args:
        plan: the run.
        model: the policy.
        step: the training step.
        loss: of the whole step.
        norm: of the gradients; None if it is unknown.

    Raises:
        UserError: the loss or the norm is not finite.
    """
    if not math.isfinite(loss):
        if step == 1:
            raise not_finite_start(model, plan.model, "the loss")
        raise diverged(plan, f"the loss is {loss}", step)
    if norm is not None and not math.isfinite(norm):
        raise diverged(plan, f"the gradients are not finite (their norm is {norm})", step)


def diverged(plan: TrainPlan, what: str, step: int) -> UserError:
    """The error of a run whose numbers are not finite any more.

    Args:
        plan: the run.
        what: the number and its value.
        step: the training step.
    """
    rate = keys.argument(plan.section, "learning_rate")
    tries = [f"a smaller train.learning_rate (now {rate:g})"]
    if not keys.argument(plan.section, "max_grad_norm"):
        tries.append("train.max_grad_norm: 1.0")
    if not keys.argument(plan.section, "warmup_steps"):
        tries.append("train.warmup_steps: 0.05")
    if plan.precision.compute != "float32":
        tries.append("train.dtype: float32")
    last = RunFolder(plan.output).last_step()
    kept = f"the last checkpoint is that of step {last}" if last else "there is no checkpoint yet"
    return UserError(
        f"{what} in training step {step} of {plan.steps}; {kept}",
        where=str(plan.output),
        cure=f"restart (--fresh) with {', or '.join(tries)}",
    )


def not_finite_start(model: Any, name: str, what: str) -> UserError:
    """The error of a starting policy whose log-probabilities are not finite.

    Args:
        model: the starting policy.
        name: its name.
        what: what is not finite.
    """
    weights = not_finite_weights(model)
    if not weights:
        return UserError(
            f"{what} of the starting model is not finite", where=name, cure="train.dtype: float32, or another model"
        )
    shown = ", ".join(weights[:_NAMED]) + (f" and {len(weights) - _NAMED} more" if len(weights) > _NAMED else "")
    return UserError(
        f"the starting model has weights that are not finite: {shown}", where=name, cure="use an undamaged model"
    )
