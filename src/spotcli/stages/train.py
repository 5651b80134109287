"""pairs -> checkpoint: the policy learns from its repaired mistakes, tethered to what it was.

    spot train recipes/qwen3-8b.yaml

Reads the pairs, tokenises them, computes the starting policy's log-probabilities once, trains with a transformers
``Trainer`` (``stages.trainer``) and saves the model as transformers and vLLM load it. The output folder holds

    config.json, *.safetensors, tokenizer ...    the trained model, in the precision of its source (or a LoRA adapter)
    README.md                                    the model card, made from what happened
    recipe.yaml                                  the resolved recipe
    spot-train.json                              how it was made: settings, inputs, versions, counts, summary
    metrics.jsonl                                the numbers of every logged step
    checkpoint-N/                                what a killed run goes on from

A rerun with the same settings goes on where the last whole checkpoint was, and does nothing when all is done. With
other settings it refuses and says what differs. Left out on purpose: evaluation while training; that is ``spot eval``.
``stages.train_check`` only asks whether the policy still answers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import jsonl, outputs, recipe_yaml
from spotcli.console import progress, say
from spotcli.core.forward.encoding import Encoded, EncodedPair, Encoder, rough_pairs
from spotcli.errors import DataError, MissingExtra, RecipeError, SettingsChanged, SpotError, UserError
from spotcli.policies import chat_template, models
from spotcli.recipe import Recipe, TrainSection
from spotcli.records import Contrast, Pair
from spotcli.training import dry_run as estimates
from spotcli.training import settings
from spotcli.training.model_card import card
from spotcli.training.progress import Metrics, Report

if TYPE_CHECKING:
    from spotcli.core.forward.batches import Layout
    from spotcli.training.generation_check import Check
    from spotcli.training.reference import Logps
    from spotcli.training.trainer import PairTrainer, Task

META = "spot-train.json"
CHOSEN_ONLY = ("sft", "dft")
"""Objectives that never look at y-, so that rows without one can be trained on. A test compares it with the losses."""


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
    emitted: int
    """Of ``pairs``: those trained on the token ids that the policy emitted (``sample.keep_tokens``)."""
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
    estimate: dict[str, Any] | None = None
    """Of a dry run: operations, memory, minutes; see ``stages.estimate``."""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def train(
    recipe: Recipe,
    *,
    folder: Path,
    fresh: bool = False,
    dry_run: bool = False,
    device: str = "h800",
    utilisation: float = 0.4,
) -> TrainSummary:
    """Train ``recipe.model`` on ``recipe.train.data``.

    Args:
        recipe: paths of its train section are meant relative to ``folder``.
        folder: the run's.
        fresh: put an existing result aside and start anew.
        dry_run: say what would be trained and what it costs; load no weights, write nothing.
        device: of a dry run: which GPU, by its name in ``core.plan.DEVICES``.
        utilisation: of a dry run: the share of the GPU's peak that is reached.

    Raises:
        RecipeError: no model is named; an unknown or reserved key; settings that do not go together.
        DataError: a row of the data is wrong, or no pair is left to train on.
        SettingsChanged: the output was made with other settings.
        SpotError: the first loss is not what it must be.
    """
    started = time.monotonic()
    recipe = recipe.model_copy(update={"train": settings.placed(recipe.train, os.environ)})
    section = recipe.train
    if recipe.model is None:
        raise RecipeError("no model is named", where="model", cure="`model:` in the recipe")
    settings.quiet_libraries()
    settings.check_keys(section)
    settings.check_quantize(section)
    if not dry_run:
        settings.check_launch(section)
    settings.batch(section)
    data, output = folder / section.data, folder / section.output
    found = _encoded(recipe, data, rough=dry_run)
    share, why_not = _sharing(recipe, found.pairs)
    layout = settings.layout(recipe, found.pairs, share=share)
    tokens, shared_tokens = _tokens(recipe, found.pairs, layout)
    summary = TrainSummary(
        checkpoint=str(output),
        objective=section.objective,
        pairs=len(found.pairs),
        read=found.read,
        dropped=dict(found.dropped),
        emitted=found.emitted,
        epochs=float(settings.argument(section, "num_train_epochs")),
        batch_size=layout.step,
        steps=settings.steps(section, len(found.pairs)),
        tokens=tokens,
        shared_tokens=shared_tokens,
        shares_prefix=share,
    )
    if _is_main():
        _describe(summary, why_not)
        if section.check_every and settings.sharding(section) in settings.DIVIDED:
            say("no checks: with its weights divided among the processes, the policy cannot answer between two steps")
    if dry_run:
        costs = estimates.estimate(recipe, found.pairs, layout, share=share, device=device, utilisation=utilisation)
        estimates.describe(costs)
        return replace(summary, estimate=costs.as_dict())
    identity = _identity(recipe, data, layout)
    if fresh and output.exists():
        _set_aside(output)
    done = _finished(output, identity)
    if done is not None:
        say(f"{output}: already trained with these settings; nothing to do")
        return done
    if (section.ranks > 1 or section.offload != "none") and "RANK" not in os.environ:
        return _launch(recipe, summary, identity, output, folder, started)
    return _train(recipe, found.pairs, summary, identity, folder, started, layout)


# --- settings ---------------------------------------------------------------------------------------------------------


def _tokens(recipe: Recipe, pairs: list[EncodedPair], layout: Layout) -> tuple[int, int]:
    """Tokens of the first epoch: of separate rows, and of rows that share what they have in common."""
    from spotcli.core.forward.batches import plan_epoch, sizes
    from spotcli.core.forward.encoding import row_tokens

    rejected = recipe.train.objective not in CHOSEN_ONLY
    whole = sum(pair.whole_tokens if rejected else len(pair.prompt_ids) + len(pair.chosen_ids) for pair in pairs)
    plan = plan_epoch(sizes(pairs, share=not layout.padded), layout=layout, seed=recipe.seed, epoch=0)
    rows = [[pairs[at] for at in batch.members] for turn in plan for batch in turn if not batch.idle]
    return whole, sum(row_tokens(row, rejected=rejected) for row in rows)


def _identity(recipe: Recipe, data: Path, layout: Layout) -> dict[str, Any]:
    """All that the weights depend on, as it is compared with an earlier start's."""
    from spotcli.policies.fingerprint import fingerprint

    section = recipe.train
    free = {"data", "output", "processes", "nodes", "node", "main_address", "zero", "fsdp", "batch_size"}
    free |= {"check_every", "check_problems"}
    shaping = section.model_dump(mode="json", include=set(TrainSection.model_fields) - free)
    arguments = settings.DEFAULTS | section.training_arguments
    arguments |= {"per_device_train_batch_size": layout.micro, "gradient_accumulation_steps": layout.accumulate}
    shaping |= {name: value for name, value in arguments.items() if not name.startswith(settings.FREE)}
    shaping |= {"seed": recipe.seed, "processes": section.ranks, "batch_size": layout.step}
    shaping["sharding"] = settings.sharding(section)
    inputs = {
        "data": jsonl.digest(data),
        "model": recipe.model,
        "model weights": fingerprint(models.resolve(recipe.model or "")),
    }
    # What went through JSON once compares equal to what is read back.
    return json.loads(json.dumps({"settings": shaping, "inputs": inputs}))  # type: ignore[no-any-return]


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


def _encoded(recipe: Recipe, data: Path, *, rough: bool) -> Encoded:
    """The pairs as token ids; ``rough``: as words and signs, where there is no tokenizer.

    Raises:
        DataError: a row is wrong, or nothing is left.
    """
    section = recipe.train
    jsonl.count(data)
    kind = Pair if section.objective in CHOSEN_ONLY else Contrast
    try:
        tokenizer = models.load_tokenizer(recipe.model or "")
    except UserError:
        if not rough:
            raise
        say(f"{recipe.model}: no tokenizer can be loaded, so tokens are words and signs")
        return rough_pairs(jsonl.read(data, kind), max_length=section.max_length)
    _, generation = models.load_configs(recipe.model or "")
    ends = generation.get("eos_token_id")
    template = str(tokenizer.chat_template or "")
    template_kwargs = settings.template_kwargs(recipe, template)
    renamed: dict[str, str] = {}
    encoder = Encoder(
        tokenizer=tokenizer,
        render=lambda messages: chat_template.render(tokenizer, messages, template_kwargs),
        follows=lambda messages, answer: chat_template.follows(tokenizer, messages, answer, template_kwargs),
        end_ids=_end_of_turn(tokenizer),
        stop_ids=[token for token in (ends if isinstance(ends, list) else [ends]) if token is not None],
        max_length=section.max_length,
    )
    found = encoder.encode(jsonl.read(data, kind, renamed=renamed))
    if chat_template.dated(template) and _is_main():
        say(f"the chat template asks for today's date and is told {chat_template.DATE.date()}, as in sampling")
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
    from spotcli.core.forward import shared_attention

    config, _ = models.load_configs(recipe.model or "")
    reason = shared_attention.unsupported(config)
    if reason is None and section.lora is not None and section.lora.dropout:
        reason = "the LoRA dropout is not 0, and shared tokens would share one draw"
    width = shared_attention.window(config)
    if reason is None and width is not None and max(pair.longest for pair in pairs) > width:
        reason = f"a pair is longer than the sliding window of {width} tokens"
    if reason is None:
        return True, None
    if section.share_prefix is True:
        raise RecipeError(f"this model cannot share prefixes: {reason}", where="train.share_prefix", cure="auto")
    return False, f"prompt and common beginning are run twice: {reason}"


def _describe(summary: TrainSummary, why_not: str | None) -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.dropped.items()))
    emitted = f", {summary.emitted} of them on the emitted token ids" if summary.emitted else ""
    say(f"{summary.pairs} of {summary.read} pairs{emitted}" + (f"; left out: {dropped}" if dropped else ""))
    say(
        f"{summary.steps} steps of {summary.batch_size} pairs, {summary.epochs:g} epochs; tokens an epoch: "
        f"{summary.tokens:,} whole, {summary.shared_tokens:,} with common beginnings once "
        f"({summary.tokens / summary.shared_tokens:.2f} times less work)"
    )
    if why_not:
        say(why_not)


# --- training ---------------------------------------------------------------------------------------------------------


def _train(
    recipe: Recipe,
    pairs: list[EncodedPair],
    summary: TrainSummary,
    identity: Mapping[str, Any],
    folder: Path,
    started: float,
    layout: Layout,
) -> TrainSummary:
    """Train in this process, alone or as one of several ranks."""
    import torch

    from spotcli.training.trainer import PairTrainer, checkpoints, last_checkpoint, step_of

    section, main, output = recipe.train, _is_main(), folder / recipe.train.output
    arguments = settings.arguments(recipe, output, layout, summary.steps)
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    begun = jsonl.read_json(output / META).get("started") or datetime.now(UTC).isoformat(timespec="seconds")
    meta = {"command": "train", **identity, "versions": outputs.versions(), "started": begun}
    checkpoint = last_checkpoint(output)
    resumed_from = step_of(checkpoint) if checkpoint else 0
    with ExitStack() as stack:
        metrics = stack.enter_context(closing(Metrics(output / "metrics.jsonl"))) if main else None
        display = stack.enter_context(progress("pairs")) if main else None
        if metrics is not None:
            jsonl.write_json(output / META, meta | {"complete": False})
            (output / "recipe.yaml").write_text(recipe_yaml.dump(recipe), encoding="utf-8")
            metrics.keep_until(resumed_from)
            for torn in checkpoints(output):
                if step_of(torn) > resumed_from:
                    shutil.rmtree(torn)
            if checkpoint is not None:
                say(f"going on after step {resumed_from} of {summary.steps}")
        model, task, stock = _prepare(recipe, pairs, summary, identity, folder, layout, display)
        report = Report(display, *_work(summary, resumed_from), metrics) if metrics is not None else None
        trainer = PairTrainer(model=model, args=arguments, task=task, report=report)
        try:
            trainer.resume(checkpoint)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise SpotError(f"memory ran out: {str(error).splitlines()[0]}", cure=settings.MEMORY_CURE) from error
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
            if not settings.keeps_checkpoints(section):
                for old in checkpoints(output):
                    shutil.rmtree(old)
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            done = {"complete": True, "finished": finished, "summary": summary.as_dict()}
            (output / "README.md").write_text(card(meta | done, lora=section.lora is not None), encoding="utf-8")
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
    layout: Layout,
    display: Any,
) -> tuple[Any, Task, _Stock]:
    """The policy with its head and attention, and what it is trained on, reference included."""
    import torch
    from transformers import AutoConfig

    from spotcli.core.forward import logps, rounded_operands, shared_attention
    from spotcli.core.loss import OBJECTIVES, RewardShift
    from spotcli.training.trainer import Task

    section, name, share = recipe.train, recipe.model or "", summary.shares_prefix
    objective, precision = OBJECTIVES[section.objective], settings.precision(section)
    model: Any = models.load_model(name, precision.weights, precision.compute if section.quantize else None)
    stored = AutoConfig.from_pretrained(models.resolve(name), trust_remote_code=False).dtype
    stock = _Stock(model.config._attn_implementation, model.config.use_cache, stored or torch.float32)
    logps.install(model)
    rounded_operands.install(model)
    if share:
        shared_attention.register()
        model.set_attn_implementation(shared_attention.NAME)
    reference = None
    if objective.reference:
        reference = _reference(model, pairs, identity, section.quantize, precision, share, layout, folder, display)
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
        layout=layout,
        precision=precision,
        # Rounding adds up like a random walk over the tokens of an answer.
        tolerance=noise * (0.05 + section.beta * math.sqrt(mean_length)),
        keep_last=settings.keeps_checkpoints(section),
        check=_check(recipe, pairs, model, stock, precision, folder),
    )
    return model, task, stock


def _check(
    recipe: Recipe,
    pairs: list[EncodedPair],
    model: Any,
    stock: _Stock,
    precision: settings.Precision,
    folder: Path,
) -> Check | None:
    from spotcli.training.generation_check import load_check

    section = recipe.train
    if section.check_every is None or settings.sharding(section) in settings.DIVIDED:
        return None
    return load_check(
        recipe,
        folder / section.data,
        pairs,
        model,
        attention=stock.attention,
        precision=precision,
        rank=int(os.environ.get("RANK", "0")),
        ranks=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _launch(
    recipe: Recipe, summary: TrainSummary, identity: Mapping[str, Any], output: Path, folder: Path, started: float
) -> TrainSummary:
    """The same in several processes; this one only watches."""
    from spotcli.training.launcher import launch
    from spotcli.training.trainer import last_checkpoint, step_of

    section = recipe.train
    kind = {"none": "plain", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp": "FSDP"}[settings.sharding(section)]
    machine = f", machine {section.node} of {section.nodes}" if (section.nodes or 1) > 1 else ""
    say(f"{section.ranks} processes, {kind}{machine}")
    checkpoint = last_checkpoint(output)
    with progress("pairs") as display:
        report = Report(display, *_work(summary, step_of(checkpoint) if checkpoint else 0))
        launch(recipe, folder=folder, metrics=output / "metrics.jsonl", on_row=report)
    done = _finished(output, identity)
    if done is None and section.node:
        return summary  # machine 0 saves, and its folder may be out of sight
    if done is None:
        raise SpotError("training ended without a result and without an error")
    return replace(done, seconds=round(time.monotonic() - started, 1))


def _work(summary: TrainSummary, resumed_from: int) -> tuple[str, int, int]:
    """What the progress line counts: its name, all pairs of the run, those that are done."""
    total = round(summary.pairs * summary.epochs)
    return summary.objective, total, min(total, resumed_from * summary.batch_size)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _reference(
    model: Any,
    pairs: list[EncodedPair],
    identity: Mapping[str, Any],
    quantize: str | None,
    precision: settings.Precision,
    share: bool,
    layout: Layout,
    folder: Path,
    display: Any,
) -> list[Logps]:
    import torch

    from spotcli.core.forward.batches import micro_batches, sizes
    from spotcli.core.forward.packing import pack
    from spotcli.training.reference import reference_logps

    device = next(model.parameters()).device

    def score(members: Any) -> list[Logps]:
        batch = pack(members, share=share).to(device)
        with torch.no_grad(), precision():
            logps_N = model(**batch.model_inputs())
        sums = (*batch.sequence_logps(logps_N), *batch.edited_logps(logps_N))
        return list(zip(*(each_B.tolist() for each_B in sums), strict=True))

    bar = display.add_task("reference", total=len(pairs), note="") if display is not None else None
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    basis = f"{identity['inputs']['model weights']}|{precision}|{device.type}|{'shared' if share else 'plain'}"
    basis += f"|{quantize}" if quantize else ""
    with _whole(model):
        return reference_logps(
            pairs,
            cache=folder / "reference.jsonl",
            basis=basis,
            score=score,
            cut=lambda members: micro_batches(members, sizes(pairs, share=share), layout),
            advance=lambda number: display.advance(bar, number) if display is not None else None,
            rank=int(os.environ.get("RANK", "0")),
            ranks=ranks,
            share_out=_gather if ranks > 1 else None,
        )


def _whole(model: Any) -> Any:
    """A context in which each rank has all weights: ZeRO-3 divides them while they are loaded."""
    weights = list(model.parameters())
    if not any(hasattr(weight, "ds_id") for weight in weights):
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(weights)


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
    # Under ZeRO-3 and FSDP no rank has the whole of any weight; all of them take part in putting them together.
    third = trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
    sharded = third or trainer.is_fsdp_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
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


def _worker(arguments: list[str]) -> None:
    """One rank of a launched run: ``python -m spotcli.stages.train RECIPE FOLDER``."""
    recipe, folder = arguments
    train(recipe_yaml.load(Path(recipe)), folder=Path(folder))


if __name__ == "__main__":
    from spotcli.training.launcher import as_rank

    as_rank(lambda: _worker(sys.argv[1:]))
