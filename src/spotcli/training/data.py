"""The pairs of a run as token ids, and whether prompt and common beginning are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spotcli import decisions, jsonl
from spotcli.console import say
from spotcli.core.forward.encoding import NO_REJECTED, Encoded, EncodedPair, rough_pairs
from spotcli.decisions import AppliedDecisions, text_digest
from spotcli.errors import DataError, RecipeError, UserError
from spotcli.policies import models
from spotcli.policies.chat_template import EndOfTurn
from spotcli.policies.pair_encoder import CONTRASTING, PAIRS_ONLY, pair_encoder, pair_prompter
from spotcli.problems.set_rows import file_rows
from spotcli.recipe import Recipe, TrainSection
from spotcli.records import Pair
from spotcli.training.rows import INVALID, TABLES, InvalidRows, read_pairs
from spotcli.training.starting_model import StartingModel


@dataclass(frozen=True)
class TrainingData:
    """The encoded rows of a dataset, and notes about how they were read."""

    encoded: Encoded
    """The pairs, and the number of rows left out by reason."""
    template_date: str | None = None
    """The date that the chat template got as today's date; None where it asks for none."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Fields that were read under another name: name in the file -> name of the field."""
    end: EndOfTurn | None = None
    """The tokens that answers end with; None without a tokenizer."""
    invalid: InvalidRows = field(default_factory=InvalidRows)
    """The rows that are not pairs."""
    reviewed: AppliedDecisions = field(default_factory=AppliedDecisions)
    """The decisions of reviewers."""
    digests: Sequence[str] = ()
    """``text_digest`` of each of ``pairs``; empty without a tokenizer."""

    @property
    def pairs(self) -> list[EncodedPair]:
        return self.encoded.pairs


@dataclass(frozen=True)
class PrefixSharing:
    """Whether the prompt and the common beginning of both answers are computed once."""

    on: bool
    reason: str | None = None
    """Why not; None where sharing is on or the recipe turns it off."""


def load_data(recipe: Recipe, path: Path, *, rough: bool, start: StartingModel) -> TrainingData:
    """Read and encode the pairs.

    Args:
        recipe: model, chat template settings, objective, ``max_length`` and ``max_bad_rows``.
        path: the file of the pairs.
        rough: count words and signs instead of tokens if the model has no tokenizer within reach.
        start: facts about the model.

    Raises:
        DataError: too many rows are invalid, no pair is left to train on, no row has the y- that the objective needs,
            or the review file is damaged.
        RecipeError: ``sample.thinking`` is on, and the chat template has no switch for it.
        UserError: the file, the tokenizer or the chat template is missing.
    """
    section, name = recipe.train, recipe.model or ""
    _check_file(path)
    invalid = InvalidRows(section.max_bad_rows)
    renamed: dict[str, str] = {}
    reviewed = AppliedDecisions(decisions.read(path))
    rows = ((where, reviewed(pair)) for where, pair in read_pairs(path, Pair, invalid=invalid.add, renamed=renamed))
    try:
        prompter = pair_prompter(recipe)
    except RecipeError:
        raise
    except UserError:
        if not rough:
            raise
        say(f"{name}: failed to load a tokenizer; token counts are those of words and signs")
        keeps = section.objective not in PAIRS_ONLY
        encoded = rough_pairs((pair for _, pair in rows), max_length=section.max_length, keeps=keeps)
        return TrainingData(_counted(encoded, invalid, path, section), invalid=invalid, reviewed=reviewed)
    encoder = pair_encoder(prompter, section, start)
    encoded, digests = Encoded(), list[str]()
    for where, pair in rows:
        try:
            encoder.add(pair, encoded)
            digests += [text_digest(pair)] * (len(encoded.pairs) - len(digests))
        except UserError as error:
            error.where = where
            if not isinstance(error, DataError):
                raise
            invalid.add(error)
    encoded = _counted(encoded, invalid, path, section)
    return TrainingData(encoded, prompter.date, renamed, prompter.end, invalid, reviewed, digests)


def _check_file(path: Path) -> None:
    """Check that the file exists, before the tokenizer is loaded.

    Raises:
        UserError: it does not.
    """
    if path.suffix.lower() in TABLES:
        file_rows(path)
    else:
        jsonl.count(path)


def _counted(encoded: Encoded, invalid: InvalidRows, path: Path, section: TrainSection) -> Encoded:
    """The encoded rows with the invalid ones counted.

    Raises:
        DataError: no pair is left to train on, no row has the y- that the objective needs, or most rows are invalid.
    """
    if invalid.count:
        encoded.read += invalid.count
        encoded.dropped[INVALID] += invalid.count
        invalid.check_share(encoded.read)
    unpaired = encoded.unpaired + encoded.dropped[NO_REJECTED]
    if unpaired and unpaired == len(encoded.pairs) + encoded.dropped[NO_REJECTED] and section.objective in CONTRASTING:
        raise DataError(
            f"{section.objective} requires rejected answers, and none of the {unpaired} rows has one",
            where=str(path),
            cure="add pairs with `rejected`, or use reward-sft, sft or dft",
        )
    if encoded.pairs:
        return encoded
    reasons = ", ".join(f"{count} {reason}" for reason, count in encoded.dropped.items())
    message = f"no pair is left to train on ({reasons or 'the file is empty'})"
    if invalid.count:
        raise invalid.error(message)
    raise DataError(message, where=str(path), cure="add pairs, or raise train.max_length")


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
