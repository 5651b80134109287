"""The model card of a trained model: README.md in the output folder, made from spot-train.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spotcli.console import safe
from spotcli.training.run_folder import RunMeta
from spotcli.training.step_metrics import LOGP_CHANGES
from spotcli.training.summary import Survival

_SETTINGS = (
    "objective",
    "beta",
    "shift",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "batch_size",
    "max_length",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "weight_decay",
    "max_grad_norm",
    "dtype",
    "quantize",
    "seed",
    "processes",
    "zero",
)
"""Settings of the card's table, in this order; those that a run does not have are left out."""

_LAST = (
    "loss",
    "rewards_chosen",
    "rewards_rejected",
    "rewards_error",
    "rewards_kept",
    "margin",
    "accuracy",
    "shift",
    "tether",
    *LOGP_CHANGES,
    "kl_kept",
    "check_right",
    "check_wrong",
    "check_undecided",
)
"""Metrics of the card's table, in this order; those that a run does not have are left out."""


def card(meta: RunMeta, *, lora: bool) -> str:
    """The card as Markdown, with the front matter that the hub reads; without a licence, which is the base model's.

    Args:
        meta: spot-train.json of a complete run.
        lora: whether the folder holds an adapter.
    """
    settings, inputs, summary = meta.settings, meta.inputs, meta.summary
    assert summary is not None
    base, name = safe(str(inputs["model"])), safe(summary.objective)
    front = [f"base_model: {json.dumps(base)}"] if not base.startswith(("builtin:", "/", ".", "~")) else []
    front += [f"library_name: {'peft' if lora else 'transformers'}", "pipeline_tag: text-generation"]
    front += ["tags: [spot, surgical-post-training, " + name + "]"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.dropped.items())) or "none"
    quantized = [
        f"QLoRA: the linear layers of the base model had 4 bits per weight ({settings['quantize']}) while the adapter "
        "was trained, and that model was the reference. With whole weights, results are close but not the same.",
        "",
    ] if settings.get("quantize") else []  # fmt: skip
    parts = [
        "---", *front, "---", "",
        f"# {'LoRA adapter for' if lora else 'Trained from'} {base}", "",
        f"Trained by `spot train` on {summary.pairs} pairs of a wrong answer and its smallest correction, with "
        f"{name}: {summary.steps} steps of {summary.batch_size} pairs, {summary.epochs:g} epochs. The licence is that "
        "of the base model. `spot eval` measures what was gained and lost, and adds its section to this card.", "",
        *quantized,
        "## Data", "",
        f"- rows: {summary.rows}; trained on: {summary.pairs}; left out: {dropped}",
        *_review(summary.reviewed, summary.audit),
        f"- pairs with the token ids that the policy emitted: {summary.emitted}",
        f"- tokens per epoch: {summary.tokens:,}; with common beginnings counted once: {summary.shared_tokens:,}",
        f"- SHA-256 of the data: `{inputs['data']}`",
        f"- weights of the starting policy: `{inputs['model weights']}`", "",
        "## Settings", "", *_table({name: settings.get(name) for name in _SETTINGS}),
        "All settings are in `recipe.yaml` and `spot-train.json`.", "",
        "## Last training step", "",
        *_table({"first loss": summary.first_loss} | {name: summary.final.get(name) for name in _LAST}),
        "Rewards are beta * (log pi - log pi_ref). `logp_change` is the change of log-probabilities since the start, "
        "in nats per token: on tokens that both answers have, on tokens of the correction only, on tokens of the wrong "
        "answer only. `metrics.jsonl` has every logged step.", "",
        *_saved(summary.saved),
        "## Versions", "", ", ".join(f"{package} {version}" for package, version in meta.versions.items()), "",
    ]  # fmt: skip
    return "\n".join(parts)


def _review(reviewed: Mapping[str, int], audit: Mapping[str, Any] | None) -> list[str]:
    """What people decided about the pairs, and the error rate that they found."""
    lines = []
    if reviewed:
        lines.append("- decisions of reviewers: " + ", ".join(f"{reviewed[key]} {key}" for key in sorted(reviewed)))
    if audit:
        drawn = f"of a random sample (seed {audit['seed']})" + ("" if audit["current"] else " of an earlier version")
        lines.append(f"- audit {drawn}: {safe(str(audit['text']))} (exact 95 % interval)")
    return lines


def _saved(survival: Survival | None) -> list[str]:
    """What the format of the file left of the training."""
    if survival is None:
        return []
    how = "without rounding" if survival.rounding == "none" else f"rounded from float32 ({survival.rounding})"
    margin = (
        f" and {survival.margin:.0%} of the change of the margin ({survival.margin_change:+.3g} nats, measured on "
        f"{survival.pairs} of the pairs with float32 products)"
        if survival.margin is not None
        else ""
    )
    return [
        "## Saved weights", "",
        f"The weights are {survival.dtype}, {how}. The file has {survival.update:.0%} of the update{margin}. "
        f"{survival.moved_in_training:.1%} of the weights differ from the starting policy's before rounding, "
        f"{survival.moved:.1%} in the file. The forward pass of training computed with {survival.seen:.0%} of the "
        "update.", "",
    ]  # fmt: skip


def _table(values: Mapping[str, Any]) -> list[str]:
    """The values that are not None, as a Markdown table."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    rows = [f"| {name} | {safe(str(value))} |" for name, value in shown.items() if value is not None]
    return ["| | |", "|---|---|", *rows, ""]
