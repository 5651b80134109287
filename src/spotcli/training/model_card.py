"""The model card of a checkpoint: README.md in the result's folder, made from what happened and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spotcli.console import safe

# In the order of the table; what a run has not is left out.
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
_LAST = (
    "loss",
    "rewards_chosen",
    "rewards_rejected",
    "margin",
    "accuracy",
    "shift",
    "tether",
    "moved_kept",
    "moved_chosen",
    "moved_rejected",
    "check_right",
    "check_wrong",
    "check_undecided",
)


def card(meta: Mapping[str, Any], *, lora: bool) -> str:
    """The card as Markdown with the front matter that the hub reads. The licence is the base model's, so it says none.

    Args:
        meta: what spot-train.json holds of a finished run.
        lora: the folder holds an adapter.
    """
    settings, inputs, summary = meta["settings"], meta["inputs"], meta["summary"]
    base, name = safe(str(inputs["model"])), safe(str(summary["objective"]))
    front = [f"base_model: {json.dumps(base)}"] if not base.startswith(("builtin:", "/", ".", "~")) else []
    front += [f"library_name: {'peft' if lora else 'transformers'}", "pipeline_tag: text-generation"]
    front += ["tags: [spot, surgical-post-training, " + name + "]"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(summary["dropped"].items())) or "none"
    final = summary["final"]
    quantized = [
        f"QLoRA: the base model's linear layers were in 4 bits ({settings['quantize']}) while the adapter was trained, "
        "and the reference was that model. Beside whole weights the adapter is near what was trained, not the same.",
        "",
    ] if settings.get("quantize") else []  # fmt: skip
    parts = [
        "---", *front, "---", "",
        f"# {'LoRA adapter for' if lora else 'Trained from'} {base}", "",
        f"Trained by `spot train` on {summary['pairs']} pairs of a wrong answer and its smallest correction, with "
        f"{name}: {summary['steps']} steps of {summary['batch_size']} pairs, {summary['epochs']:g} epochs. The licence "
        "is that of the base model. What was gained and what was lost, `spot eval` says; nothing here does.", "",
        *quantized,
        "## Data", "",
        f"- rows read: {summary['read']}; trained on: {summary['pairs']}; left out: {dropped}",
        f"- on the token ids that the policy emitted: {summary['emitted']}",
        f"- tokens an epoch: {summary['tokens']:,}; with common beginnings once: {summary['shared_tokens']:,}",
        f"- SHA-256 of the data: `{inputs['data']}`",
        f"- weights that it started from: `{inputs['model weights']}`", "",
        "## Settings", "", *_table({name: settings.get(name) for name in _SETTINGS}),
        "All of them are in `recipe.yaml` and `spot-train.json`.", "",
        "## The last step", "",
        *_table({"first loss": summary["first_loss"]} | {name: final.get(name) for name in _LAST}),
        "Rewards are beta * (log pi - log pi_ref); `moved` is in nats a token since the start, on what both answers "
        "have, on what the correction has alone, on what the wrong answer has alone. Every step is in "
        "`metrics.jsonl`.", "",
        "## Versions", "", ", ".join(f"{package} {version}" for package, version in meta["versions"].items()), "",
    ]  # fmt: skip
    return "\n".join(parts)


def _table(values: Mapping[str, Any]) -> list[str]:
    """Names and values that are there, as a table."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    rows = [f"| {name} | {safe(str(value))} |" for name, value in shown.items() if value is not None]
    return ["| | |", "|---|---|", *rows, ""]
