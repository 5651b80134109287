"""The pairs of a run as token ids, and whether prompt and common beginning are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spotcli import jsonl
from spotcli.console import say
from spotcli.core.forward.encoding import Encoded, EncodedPair, Encoder, rough_pairs
from spotcli.errors import DataError, RecipeError, UserError
from spotcli.policies import chat_template, models
from spotcli.policies.prompter import Prompter
from spotcli.recipe import Recipe, TrainSection
from spotcli.records import Contrast, Pair

CHOSEN_ONLY = ("sft", "dft")
"""Objectives that do not use the rejected answer; they also train on rows without one."""


@dataclass(frozen=True)
class TrainingData:
    """The encoded rows of a dataset, and notes about how they were read."""

    encoded: Encoded
    """The pairs, and the number of rows left out by reason."""
    template_date: str | None = None
    """The date that the chat template got as today's date; None where it asks for none."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Fields that were read under another name: name in the file -> name of the field."""

    @property
    def pairs(self) -> list[EncodedPair]:
        return self.encoded.pairs


@dataclass(frozen=True)
class PrefixSharing:
    """Whether the prompt and the common beginning of both answers are computed once."""

    on: bool
    reason: str | None = None
    """Why not; None where sharing is on or the recipe turns it off."""


def load_data(recipe: Recipe, path: Path, *, rough: bool) -> TrainingData:
    """Read and encode the pairs.

    Args:
        recipe: model, chat template settings, objective and ``max_length``.
        path: the file of the pairs.
        rough: count words and signs instead of tokens if the model has no tokenizer within reach.

    Raises:
        DataError: a row is invalid, or no pair is left to train on.
        RecipeError: ``sample.thinking`` is on, and the chat template has no switch for it.
        UserError: the file, the tokenizer or the chat template is missing.
    """
    section, name = recipe.train, recipe.model or ""
    jsonl.count(path)  # a missing file stops the run before the tokenizer is loaded
    kind = Pair if section.objective in CHOSEN_ONLY else Contrast
    template_kwargs = recipe.sample.chat_template_kwargs | section.chat_template_kwargs
    try:
        prompter = Prompter(name, template_kwargs, recipe.sample.thinking)
    except RecipeError:
        raise
    except UserError:
        if not rough:
            raise
        say(f"{name}: failed to load a tokenizer; token counts are those of words and signs")
        return TrainingData(rough_pairs(jsonl.read(path, kind), max_length=section.max_length))
    tokenizer = prompter.tokenizer
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-turn token", where=tokenizer.name_or_path)
    renamed: dict[str, str] = {}
    encoder = Encoder(
        tokenizer=tokenizer,
        render=prompter.ids,
        follows=lambda messages, answer: chat_template.follows(tokenizer, messages, answer, prompter.template_kwargs),
        end_ids=[tokenizer.eos_token_id],
        stop_ids=prompter.ends,
        max_length=section.max_length,
    )
    encoded = encoder.encode(jsonl.read(path, kind, renamed=renamed, refuse_evaluation=True))
    if not encoded.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in encoded.dropped.items())
        raise DataError(
            f"no pair is left to train on ({reasons or 'the file is empty'})",
            where=str(path),
            cure="add pairs, or raise train.max_length",
        )
    return TrainingData(encoded, prompter.date, renamed)


def decide_sharing(section: TrainSection, model: str, pairs: Sequence[EncodedPair]) -> PrefixSharing:
    """Whether the run computes common prefixes once.

    Raises:
        RecipeError: ``train.share_prefix`` is on, and the model or the settings do not support it.
    """
    if section.share_prefix is False:
        return PrefixSharing(False)
    from spotcli.core.forward import shared_attention

    config, _ = models.load_configs(model)
    reason = shared_attention.unsupported(config)
    if reason is None and section.lora is not None and section.lora.dropout:
        reason = "train.lora.dropout is not 0, and shared tokens would share one dropout mask"
    window = shared_attention.window(config)
    if reason is None and window is not None and max(pair.longest for pair in pairs) > window:
        reason = f"a pair is longer than the sliding window of {window} tokens"
    if reason is not None and section.share_prefix is True:
        raise RecipeError(f"this model cannot share prefixes: {reason}", where="train.share_prefix", cure="auto")
    return PrefixSharing(reason is None, reason)
