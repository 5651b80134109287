"""pairs -> checkpoint: the policy learns from its repaired mistakes, tethered to what it was.

    spot train recipes/qwen3-8b.yaml

Reads the pairs, tokenises them, computes the starting policy's log-probabilities once, trains with a transformers
``Trainer`` (``stages.trainer``) and saves the model as transformers and vLLM load it. The output folder holds

    config.json, *.safetensors, tokenizer ...    the trained model, in the precision of its source (or a LoRA adapter)
    recipe.yaml                                  the resolved recipe
    spot-train.json                              how it was made: settings, inputs, versions, counts, summary
    metrics.jsonl                                the numbers of every logged step
    checkpoint-N/                                what a killed run goes on from

A rerun with the same settings goes on where the last whole checkpoint was, and does nothing when all is done. With
other settings it refuses and says what differs. Left out on purpose: evaluation while training; that is ``spot eval``.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import jsonl
from spotcli import recipe as recipes
from spotcli.console import progress, say, warn
from spotcli.core.encoding import Encoded, EncodedPair, encode
from spotcli.errors import DataError, MissingExtra, RecipeError, SettingsChanged, SpotError, UserError
from spotcli.policies import models
from spotcli.recipe import Recipe, TrainSection
from spotcli.records import Contrast, Pair

if TYPE_CHECKING:
    from spotcli.stages.trainer import PairTrainer, Task

META = "spot-train.json"
CHOSEN_ONLY = ("sft", "dft")
"""Objectives that never look at y-, so that rows without one can be trained on. A test compares it with the losses."""

DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-6,
    "num_train_epochs": 2,
    "optim": "adamw_torch_fused",
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "report_to": "none",
    "log_level": "error",
    "save_total_limit": 2,
    "ddp_find_unused_parameters": False,
}
"""Of TrainingArguments, where a recipe says nothing; the method's own."""

_MICRO, _STEP = 4, 32

OWNED: dict[str, str] = {
    "output_dir": "the folder is train.output",
    "seed": "the seed is the recipe's own, at its top",
    "data_seed": "the seed is the recipe's own, at its top",
    "bf16": "the precision is train.dtype",
    "fp16": "the precision is train.dtype",
    "remove_unused_columns": "pairs are not columns",
    "label_names": "pairs have no labels",
    "resume_from_checkpoint": "resuming is what a rerun does; --fresh starts anew",
    "save_only_model": "without the optimiser's state a run could not resume",
    "ignore_data_skip": "a resumed run must not see the same pairs again",
    "restore_callback_states_from_checkpoint": "the reward shift is restored always",
    "enable_jit_checkpoint": "checkpoints are ours",
    "auto_find_batch_size": "the batch decides what is learned; choose per_device_train_batch_size",
    "train_sampling_strategy": "pairs of like size meet in a micro-batch already",
    "length_column_name": "pairs of like size meet in a micro-batch already",
    "dataloader_drop_last": "every pair is trained on",
    "average_tokens_across_devices": "losses are averaged over the whole step always",
    "label_smoothing_factor": "the loss is train.objective",
    "use_liger_kernel": "it would replace the head that the log-probabilities come from",
    "neftune_noise_alpha": "noise would make the policy another model than its reference",
    "deepspeed": "processes and train.zero say it",
    "fsdp": "processes and train.zero say it",
    "fsdp_config": "processes and train.zero say it",
    "accelerator_config": "the launch is ours",
    "parallelism_config": "the launch is ours",
    "local_rank": "the launch is ours",
    "eval_strategy": "evaluation is `spot eval`",
    "eval_on_start": "evaluation is `spot eval`",
    "do_eval": "evaluation is `spot eval`",
    "do_predict": "evaluation is `spot eval`",
    "load_best_model_at_end": "evaluation is `spot eval`",
    "metric_for_best_model": "evaluation is `spot eval`",
    "disable_tqdm": "the display is ours",
    "use_cache": "there is nothing to cache in training",
}
"""Keys of TrainingArguments that a recipe cannot set, and why."""

# What may differ between the first start of a run and its continuation: it does not reach the weights.
_FREE = (
    "save_",
    "logging_",
    "log_",
    "report_to",
    "run_name",
    "dataloader_",
    "push_to_hub",
    "hub_",
    "project",
    "trackio",
)


@dataclass(frozen=True)
class TrainSummary:
    """What was trained, on what, and how it ended."""

    checkpoint: str
    """The folder of the trained model."""
    objective: str
    pairs: int
    """Trained on."""
    read: int
    """Rows of the data: ``pairs`` and everything in ``dropped``."""
    dropped: dict[str, int]
    """Rows left out, by reason."""
    epochs: float
    batch_size: int
    """Pairs of an optimiser step."""
    steps: int
    tokens: int
    """Tokens of an epoch, each answer with its whole prompt."""
    shared_tokens: int
    """The same with what a micro-batch has in common run once: what is run where ``shares_prefix``."""
    shares_prefix: bool
    seconds: float = 0.0
    """Of this start, loading and reference included."""
    pairs_per_second: float | None = None
    """Over the training steps of this start."""
    first_loss: float | None = None
    final: dict[str, float] = field(default_factory=dict)
    """The last step's loss, rewards, margin, shift, tether ..."""
    resumed_from: int | None = None
    """The step that this start went on from."""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def train(recipe: Recipe, *, folder: Path, fresh: bool = False, dry_run: bool = False) -> TrainSummary:
    """Train ``recipe.model`` on ``recipe.train.data``.

    Args:
        recipe: paths of its train section are meant relative to ``folder``.
        folder: the run's.
        fresh: put an existing result aside and start anew.
        dry_run: say what would be trained; load no weights, write nothing.

    Raises:
        RecipeError: no model is named; an unknown or reserved key; settings that do not go together.
        DataError: a row of the data is wrong, or no pair is left to train on.
        SettingsChanged: the output was made with other settings.
        SpotError: the first loss is not what it must be.
    """
    started = time.monotonic()
    section = recipe.train
    if recipe.model is None:
        raise RecipeError("no model is named", where="model", cure="`model:` in the recipe")
    _quiet_deepspeed()
    _check_keys(section)
    micro, accumulate = _layout(section)
    data, output = folder / section.data, folder / section.output
    found = _encoded(recipe, data)
    share, why_not = _sharing(recipe, found.pairs)
    steps = _steps(section, len(found.pairs), micro, accumulate)
    tokens, shared_tokens = _tokens(recipe, found.pairs, micro, accumulate)
    summary = TrainSummary(
        checkpoint=str(output),
        objective=section.objective,
        pairs=len(found.pairs),
        read=found.read,
        dropped=dict(found.dropped),
        epochs=float(_argument(section, "num_train_epochs")),
        batch_size=micro * accumulate * section.processes,
        steps=steps,
        tokens=tokens,
        shared_tokens=shared_tokens,
        shares_prefix=share,
    )
    if _is_main():
        _describe(summary, why_not)
    if dry_run:
        return summary
    identity = _identity(recipe, data, micro, accumulate)
    if fresh and output.exists():
        _set_aside(output)
    done = _finished(output, identity)
    if done is not None:
        say(f"{output}: already trained with these settings; nothing to do")
        return done
    if section.processes > 1 and "RANK" not in os.environ:
        return _launch(recipe, summary, identity, output, folder, started)
    return _train(recipe, found.pairs, summary, identity, folder, started, micro)


# --- settings ---------------------------------------------------------------------------------------------------------


def _quiet_deepspeed() -> None:
    """Tell DeepSpeed, which accelerate imports wherever it is installed, what it would otherwise warn of on stdout."""
    try:
        import torch
    except ImportError:
        raise MissingExtra("train", "training") from None
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _argument(section: TrainSection, name: str) -> Any:
    return section.training_arguments.get(name, DEFAULTS.get(name))


def _check_keys(section: TrainSection) -> None:
    """Refuse what TrainingArguments does not know, and what a recipe cannot decide.

    Raises:
        RecipeError: with the nearest name, or with the reason.
        MissingExtra: transformers is not installed.
    """
    given = section.training_arguments
    if not given:
        return
    try:
        from transformers import TrainingArguments
    except ImportError:
        raise MissingExtra("train", "training") from None
    known = {each.name for each in fields(TrainingArguments)}
    for name in given:
        if name in OWNED:
            raise RecipeError(f"this key cannot be set: {OWNED[name]}", where=f"train.{name}")
        if name not in known:
            ours = list(TrainSection.model_fields)
            raise RecipeError(
                "unknown key", where=f"train.{name}", cure=recipes.suggest(name, sorted((known | {*ours}) - {*OWNED}))
            )


def _layout(section: TrainSection) -> tuple[int, int]:
    """Pairs of a micro-batch, and micro-batches of an optimiser step on each process.

    Raises:
        RecipeError: the batch cannot be made of such micro-batches.
    """
    given, step = section.training_arguments, section.batch_size
    micro, accumulate = given.get("per_device_train_batch_size"), given.get("gradient_accumulation_steps")
    if step is None and (micro or accumulate):
        return int(micro or _MICRO), int(accumulate or 1)
    step = step or _STEP
    each, rest = divmod(step, section.processes)
    if micro is None:
        micro = each // accumulate if accumulate else math.gcd(each, _MICRO)
    if rest or not micro or each % micro or (accumulate and micro * accumulate != each):
        raise RecipeError(
            f"{step} pairs a step cannot be made of {section.processes} process(es) with micro-batches of {micro}"
            + (f", {accumulate} of them" if accumulate else ""),
            where="train.batch_size",
            cure="batch_size = processes * per_device_train_batch_size * gradient_accumulation_steps",
        )
    return int(micro), each // int(micro)


def _steps(section: TrainSection, pairs: int, micro: int, accumulate: int) -> int:
    """Optimiser steps of the whole run."""
    most = int(_argument(section, "max_steps") or -1)
    if most > 0:
        return most
    each = math.ceil(math.ceil(pairs / (micro * section.processes)) / accumulate)
    return math.ceil(float(_argument(section, "num_train_epochs")) * each)


def _tokens(recipe: Recipe, pairs: list[EncodedPair], micro: int, accumulate: int) -> tuple[int, int]:
    """Tokens of the first epoch: of separate rows, and of rows that share what they have in common."""
    from spotcli.core.packing import plan_epoch, row_tokens

    section = recipe.train
    rejected = section.objective not in CHOSEN_ONLY
    whole = sum(pair.whole_tokens if rejected else len(pair.prompt_ids) + len(pair.chosen_ids) for pair in pairs)
    sizes = [pair.shared_tokens for pair in pairs]
    plan = plan_epoch(sizes, micro=micro, accumulate=accumulate, ranks=section.processes, seed=recipe.seed, epoch=0)
    rows = [[pairs[at] for at in batch.members] for turn in plan for batch in turn if not batch.idle]
    return whole, sum(row_tokens(row, rejected=rejected) for row in rows)


def _identity(recipe: Recipe, data: Path, micro: int, accumulate: int) -> dict[str, Any]:
    """All that the weights depend on, as it is compared with an earlier start's."""
    from spotcli.policies.reference import fingerprint

    section = recipe.train
    free = {"data", "output", "processes", "zero", "batch_size"}
    settings = section.model_dump(mode="json", include=set(TrainSection.model_fields) - free)
    arguments = DEFAULTS | section.training_arguments
    arguments |= {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulate}
    settings |= {name: value for name, value in arguments.items() if not name.startswith(_FREE)}
    settings |= {"seed": recipe.seed, "processes": section.processes}
    if section.processes > 1:
        settings["zero"] = section.zero
    inputs = {
        "data": jsonl.digest(data),
        "model": recipe.model,
        "model weights": fingerprint(models.resolve(recipe.model or "")),
    }
    # What went through JSON once compares equal to what is read back.
    return json.loads(json.dumps({"settings": settings, "inputs": inputs}))  # type: ignore[no-any-return]


def _finished(output: Path, identity: Mapping[str, Any]) -> TrainSummary | None:
    """The summary of a complete run with the same settings; None where there is none or it is unfinished.

    Raises:
        SettingsChanged: the folder holds something else.
    """
    before = jsonl.read_json(output / META)
    cure = "--fresh starts anew (the old folder is kept aside), -s train.output=... writes elsewhere"
    begun = any(output.glob("checkpoint-*")) or (output / "model.safetensors").exists()
    if before and not before.get("complete") and not begun:
        return None
    if not before:
        if output.is_dir() and any(output.iterdir()):
            raise SettingsChanged(f"the folder is not empty, and {META} is not in it", where=str(output), cure=cure)
        return None
    changed = [
        f"{name} was {json.dumps(old.get(name))}, now {json.dumps(new.get(name))}"
        for part in ("settings", "inputs")
        for old, new in [(before.get(part, {}), identity[part])]
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise SettingsChanged(
            "this was trained with other settings: " + "; ".join(changed), where=str(output), cure=cure
        )
    return TrainSummary(**before["summary"]) if before.get("complete") else None


def _set_aside(output: Path) -> None:
    number = 1
    while (aside := output.with_name(f"{output.name}.old-{number}")).exists():
        number += 1
    output.rename(aside)
    say(f"{output}: the old folder is now {aside.name}")


# --- data -------------------------------------------------------------------------------------------------------------


def _encoded(recipe: Recipe, data: Path) -> Encoded:
    """The pairs as token ids.

    Raises:
        DataError: a row is wrong, or nothing is left.
    """
    section = recipe.train
    jsonl.count(data)
    tokenizer = models.load_tokenizer(recipe.model or "")
    renamed: dict[str, str] = {}
    found = encode(
        jsonl.read(data, Pair if section.objective in CHOSEN_ONLY else Contrast, renamed=renamed),
        tokenizer=tokenizer,
        render=lambda messages: models.render(tokenizer, messages, section.chat_template_kwargs),
        end_ids=_end_of_turn(tokenizer),
        max_length=section.max_length,
    )
    if renamed and _is_main():
        say(f"{data}: read " + ", ".join(f"{other} as {ours}" for other, ours in renamed.items()))
    if not found.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.dropped.items())
        raise DataError(
            f"no pair is left to train on ({reasons or 'the file is empty'})", where=str(data), cure="more pairs"
        )
    return found


def _end_of_turn(tokenizer: Any) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-turn token", where=tokenizer.name_or_path)
    return [tokenizer.eos_token_id]


def _sharing(recipe: Recipe, pairs: list[EncodedPair]) -> tuple[bool, str | None]:
    """Whether prefixes are shared, and why not where that is worth a word.

    Raises:
        RecipeError: sharing is demanded of a model that cannot.
    """
    section = recipe.train
    if section.share_prefix is False:
        return False, None
    from transformers import AutoConfig

    from spotcli.core import attention

    config = AutoConfig.from_pretrained(models.resolve(recipe.model or ""), trust_remote_code=False)
    reason = attention.unsupported(config)
    if reason is None and section.lora is not None and section.lora.dropout:
        reason = "the LoRA dropout is not 0, and shared tokens would share one draw"
    width = attention.window(config)
    if reason is None and width is not None and max(pair.longest for pair in pairs) > width:
        reason = f"a pair is longer than the sliding window of {width} tokens"
    if reason is None:
        return True, None
    if section.share_prefix is True:
        raise RecipeError(f"this model cannot share prefixes: {reason}", where="train.share_prefix", cure="auto")
    return False, f"prompt and common beginning are run twice: {reason}"


def _describe(summary: TrainSummary, why_not: str | None) -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.dropped.items()))
    say(f"{summary.pairs} of {summary.read} pairs" + (f"; left out: {dropped}" if dropped else ""))
    say(
        f"{summary.steps} steps of {summary.batch_size} pairs, {summary.epochs:g} epochs; tokens an epoch: "
        f"{summary.tokens:,} whole, {summary.shared_tokens:,} with common beginnings once "
        f"({summary.tokens / summary.shared_tokens:.2f} times less work)"
    )
    if why_not:
        say(why_not)


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Precision:
    """How the policy and its reference compute."""

    weights: models.Dtype
    """What they are loaded as."""
    compute: str
    """What matrix products are computed in."""
    autocast: bool

    @contextmanager
    def __call__(self) -> Iterator[None]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.autocast(device, getattr(torch, self.compute)) if self.autocast else nullcontext():
            yield

    def __str__(self) -> str:
        return f"{self.weights}/{self.compute}/{'autocast' if self.autocast else 'plain'}"


def _precision(section: TrainSection) -> _Precision:
    """float32 weights with bfloat16 products; under DeepSpeed bfloat16 weights, of which it keeps copies in float32.

    LoRA's base weights never move, so bfloat16 is enough for them; its adapters are float32.
    """
    compute = str(models.torch_dtype(section.dtype)).removeprefix("torch.")
    if compute == "float32":
        return _Precision("float32", "float32", autocast=False)
    if section.processes > 1 and section.zero:
        return _Precision("bfloat16", compute, autocast=False)
    return _Precision("bfloat16" if section.lora else "float32", compute, autocast=True)


def _train(
    recipe: Recipe,
    pairs: list[EncodedPair],
    summary: TrainSummary,
    identity: Mapping[str, Any],
    folder: Path,
    started: float,
    micro: int,
) -> TrainSummary:
    """Train in this process, alone or as one of several ranks."""
    import torch

    from spotcli.stages.trainer import PairTrainer, checkpoints, last_checkpoint, step_of

    section, main, output = recipe.train, _is_main(), folder / recipe.train.output
    arguments = _arguments(recipe, output, summary, micro)
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    begun = jsonl.read_json(output / META).get("started") or datetime.now(UTC).isoformat(timespec="seconds")
    meta = {"command": "train", **identity, "versions": jsonl.versions(), "started": begun}
    checkpoint = last_checkpoint(output)
    resumed_from = step_of(checkpoint) if checkpoint else 0
    with ExitStack() as stack:
        metrics = stack.enter_context(closing(_Metrics(output / "metrics.jsonl"))) if main else None
        display = stack.enter_context(progress("pairs")) if main else None
        if metrics is not None:
            jsonl.write_json(output / META, meta | {"complete": False})
            (output / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
            metrics.keep_until(resumed_from)
            for torn in checkpoints(output):
                if step_of(torn) > resumed_from:
                    shutil.rmtree(torn)
            if checkpoint is not None:
                say(f"going on after step {resumed_from} of {summary.steps}")
        model, task, stock = _prepare(recipe, pairs, summary, identity, folder, micro, display)
        report = _Report(display, summary, resumed_from, metrics) if metrics is not None else None
        trainer = PairTrainer(model=model, args=arguments, task=task, report=report)
        trainer.resume(checkpoint)
        _save(trainer, output, recipe.model or "", stock)
        if report is not None:
            summary = replace(
                summary,
                seconds=round(time.monotonic() - started, 1),
                pairs_per_second=report.pairs_per_second,
                first_loss=trainer.first_loss,
                final=report.final,
                resumed_from=resumed_from or None,
            )
            if not _keeps_checkpoints(section):
                for old in checkpoints(output):
                    shutil.rmtree(old)
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            done = {"complete": True, "finished": finished, "summary": summary.as_dict()}
            jsonl.write_json(output / META, meta | done)
    return summary


@dataclass(frozen=True)
class _Stock:
    """What training changed of the model's configuration, to be put back into the saved one."""

    attention: str
    use_cache: bool
    dtype: Any
    """The precision of the source's weights: the result has the same. float32 masters of a bfloat16 model hold nothing
    that would be loaded again."""


def _prepare(
    recipe: Recipe,
    pairs: list[EncodedPair],
    summary: TrainSummary,
    identity: Mapping[str, Any],
    folder: Path,
    micro: int,
    display: Any,
) -> tuple[Any, Task, _Stock]:
    """The policy with its head and attention, and what it is trained on, reference included."""
    import torch
    from transformers import AutoConfig

    from spotcli.core import attention, logps
    from spotcli.core.loss import OBJECTIVES, RewardShift
    from spotcli.stages.trainer import Task

    section, name, share = recipe.train, recipe.model or "", summary.shares_prefix
    objective, precision = OBJECTIVES[section.objective], _precision(section)
    model: Any = models.load_model(name, precision.weights)
    stored = AutoConfig.from_pretrained(models.resolve(name), trust_remote_code=False).dtype
    stock = _Stock(model.config._attn_implementation, model.config.use_cache, stored or torch.float32)
    logps.install(model)
    if share:
        attention.register()
        model.set_attn_implementation(attention.NAME)
    reference = None
    if objective.reference:
        reference = _reference(model, pairs, identity, precision, share, micro, folder, display)
    if section.lora is not None:
        model = _with_lora(model, recipe)
    mean_length = sum(max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs) / len(pairs)
    noise = 1e-4 if precision.compute == "float32" else 2e-2
    task = Task(
        pairs=pairs,
        reference=reference,
        objective=objective,
        beta=section.beta,
        shift=RewardShift.of(section.shift if objective.shifted else "none", decay=section.shift_decay),
        share=share,
        precision=precision,
        # Rounding adds up like a random walk over the tokens of an answer.
        tolerance=noise * (0.05 + section.beta * math.sqrt(mean_length)),
        keep_last=_keeps_checkpoints(section),
    )
    return model, task, stock


def _launch(
    recipe: Recipe, summary: TrainSummary, identity: Mapping[str, Any], output: Path, folder: Path, started: float
) -> TrainSummary:
    """The same in several processes; this one only watches."""
    from spotcli.stages.launch import launch
    from spotcli.stages.trainer import last_checkpoint, step_of

    say(f"{recipe.train.processes} processes, " + (f"ZeRO-{recipe.train.zero}" if recipe.train.zero else "plain"))
    checkpoint = last_checkpoint(output)
    with progress("pairs") as display:
        report = _Report(display, summary, step_of(checkpoint) if checkpoint else 0)
        launch(recipe, folder=folder, metrics=output / "metrics.jsonl", on_row=report)
    done = _finished(output, identity)
    if done is None:
        raise SpotError("training ended without a result and without an error")
    return replace(done, seconds=round(time.monotonic() - started, 1))


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _keeps_checkpoints(section: TrainSection) -> bool:
    """Checkpoints that nobody asked for serve resuming only, and go when the model is saved."""
    return any(name in section.training_arguments for name in ("save_strategy", "save_steps", "save_total_limit"))


def _arguments(recipe: Recipe, output: Path, summary: TrainSummary, micro: int) -> Any:
    """transformers' TrainingArguments of this run.

    Raises:
        RecipeError: transformers does not take a value.
    """
    import torch
    from transformers import TrainingArguments

    section = recipe.train
    values: dict[str, Any] = {"save_strategy": "steps", "save_steps": max(1, math.ceil(summary.steps / 4))} | DEFAULTS
    values |= section.training_arguments
    # Newer transformers have another name for it and warn of the old one.
    known = {each.name for each in fields(TrainingArguments)}
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")
        if old in values and new in known:
            values[new] = values.pop(old)
    deepspeed = section.processes > 1 and section.zero > 0
    values |= {
        "output_dir": str(output),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": summary.batch_size // (micro * section.processes),
        "seed": recipe.seed,
        "remove_unused_columns": False,
        "label_names": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": deepspeed and _precision(section).compute == "bfloat16",
    }
    try:
        arguments = TrainingArguments(**values)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"transformers refuses a training argument: {error}", where="train") from None
    if "RANK" not in os.environ:
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are for several processes
    return arguments


def _reference(
    model: Any,
    pairs: list[EncodedPair],
    identity: Mapping[str, Any],
    precision: _Precision,
    share: bool,
    micro: int,
    folder: Path,
    display: Any,
) -> list[tuple[float, float]]:
    import torch

    from spotcli.core.packing import pack
    from spotcli.policies.reference import reference_logps

    device = next(model.parameters()).device

    def score(members: Any) -> tuple[list[float], list[float]]:
        batch = pack(members, share=share).to(device)
        with torch.no_grad(), precision():
            chosen_B, rejected_B = batch.sequence_logps(model(**batch.model_inputs()))
        return chosen_B.tolist(), rejected_B.tolist()

    bar = display.add_task("reference", total=len(pairs), note="") if display is not None else None
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    basis = f"{identity['inputs']['model weights']}|{precision}|{device.type}|{'shared' if share else 'plain'}"
    return reference_logps(
        pairs,
        cache=folder / "reference.jsonl",
        basis=basis,
        score=score,
        batch=micro,
        advance=lambda number: display.advance(bar, number) if display is not None else None,
        rank=int(os.environ.get("RANK", "0")),
        ranks=ranks,
        share_out=_gather if ranks > 1 else None,
    )


def _gather(mine: Any) -> list[Any]:
    import torch.distributed as dist

    if not dist.is_initialized():
        from accelerate import PartialState

        PartialState()
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def _with_lora(model: Any, recipe: Recipe) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtra("train", "LoRA") from None
    import torch

    assert recipe.train.lora is not None
    lora = recipe.train.lora
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    # The base is frozen: without this, nothing that goes into a checkpointed layer would ask for gradients.
    model.enable_input_require_grads()
    with warnings.catch_warnings():
        # peft asks transformers by an old name whether activations are checkpointed.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, settings)


def _save(trainer: PairTrainer, output: Path, name: str, stock: _Stock) -> None:
    """The model as transformers and vLLM load it; an adapter alone for LoRA."""
    from transformers.utils import logging

    model: Any = trainer.model
    # Under ZeRO-3 no rank has the whole of any weight; all of them take part in putting them together.
    sharded = trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
    state = trainer.accelerator.get_state_dict(trainer.deepspeed) if sharded else None
    if not _is_main():
        return
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    bare.set_attn_implementation(stock.attention)
    bare.config.use_cache = stock.use_cache
    if bare is model and state is None:
        model.to(stock.dtype)
    elif bare is model and state is not None:
        tied = model.all_tied_weights_keys
        state = {key: value.to(stock.dtype) for key, value in state.items() if key not in tied}
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model.save_pretrained(output, state_dict=state)
    models.load_tokenizer(name).save_pretrained(output)


# --- what is seen while it runs ---------------------------------------------------------------------------------------


class _Metrics:
    """metrics.jsonl: one row a logged step. Holding it open is the lock on the output folder."""

    def __init__(self, path: Path) -> None:
        self.file = jsonl.Appender(path)

    def keep_until(self, step: int) -> None:
        """Forget the steps after the checkpoint that the run goes on from: they come again."""
        rows = list(self.file.rows())
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            path = self.file.path
            self.file.close()
            path.unlink()
            self.file = jsonl.Appender(path)
            self.file.append(kept)

    def close(self) -> None:
        self.file.close()


class _Report:
    """The progress line, metrics.jsonl, and a sentence when rewards go where nobody would want them."""

    def __init__(self, display: Any, summary: TrainSummary, resumed_from: int, metrics: _Metrics | None = None) -> None:
        self.display, self.metrics = display, metrics
        total = round(summary.pairs * summary.epochs)
        self.bar = display.add_task(summary.objective, total=total, note="")
        display.advance(self.bar, min(total, resumed_from * summary.batch_size))
        before = list(metrics.file.rows()) if metrics is not None else []
        self.final = self._numbers(before[-1]) if before else {}
        self.pairs = self.seconds = 0.0
        self.smooth: dict[str, float] = {}
        self.said: set[str] = set()

    @property
    def pairs_per_second(self) -> float | None:
        return round(self.pairs / self.seconds, 3) if self.seconds else None

    def __call__(self, row: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.file.append([row])
        self.final = self._numbers(row)
        self.pairs += row["pairs"]
        self.seconds += row["seconds"]
        note = self._note(row)
        self.display.update(self.bar, advance=row["pairs"], note=note)
        tenth = max(1, row["steps"] // 10)
        if self.display.disable and (row["step"] % tenth == 0 or row["step"] in (1, row["steps"])):
            say(f"step {row['step']} of {row['steps']}: {note}, {row['pairs_per_second']:.2f} pairs/s")
        self._watch(row)

    @staticmethod
    def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
        return {name: value for name, value in row.items() if name not in ("step", "steps", "pairs", "seconds")}

    @staticmethod
    def _note(row: Mapping[str, Any]) -> str:
        parts = [f"loss {row['loss']:.4f}"]
        if "rewards_chosen" in row:
            parts.append(f"rewards {row['rewards_chosen']:+.3f} / {row['rewards_rejected']:+.3f}")
            parts.append(f"margin {row['margin']:.3f}")
        if "shift" in row:
            parts.append(f"shift {row['shift']:+.3f}")
        if "tether" in row:
            parts.append(f"tether {row['tether']:.2f}")
        return ", ".join(parts)

    def _watch(self, row: Mapping[str, Any]) -> None:
        if "rewards_chosen" not in row:
            return
        for name in ("rewards_chosen", "rewards_rejected"):
            self.smooth[name] = 0.8 * self.smooth.get(name, 0.0) + 0.2 * row[name]
        chosen, rejected = self.smooth["rewards_chosen"], self.smooth["rewards_rejected"]
        if chosen < -0.05:
            self._once(
                "falling",
                f"the chosen answers have become less likely than they were (mean reward {chosen:+.2f}): the policy "
                "unlearns both answers. A smaller learning rate, a larger beta or spot-bce hold them up.",
            )
        if rejected > 0.05:
            self._once(
                "pull-up",
                f"the rejected answers have become more likely than they were (mean reward {rejected:+.2f}): what "
                "both answers share pulls them up. spot-bce and spot-bco push them down.",
            )

    def _once(self, name: str, text: str) -> None:
        if name not in self.said:
            self.said.add(name)
            warn(text)


def _worker(arguments: list[str]) -> None:
    """One rank of a launched run: ``python -m spotcli.stages.train RECIPE FOLDER``."""
    recipe, folder = arguments
    train(recipes.load(Path(recipe)), folder=Path(folder))


if __name__ == "__main__":
    from spotcli.stages.launch import as_rank

    as_rank(lambda: _worker(sys.argv[1:]))
