"""Pairs as token ids: what the policy saw, and the two answers as it would have emitted them.

    prompt_ids + chosen_ids       x, y+ and the end-of-turn token
    prompt_ids + rejected_ids     x, y- and the end-of-turn token (unless y- was cut at the token limit)

An answer is tokenised by itself and set behind the prompt's ids, because that is how it was generated: a model that
begins its answer with a line feed emits a token of its own, where tokenising the joined text could merge it with the
prompt's last one. So the prompt is a prefix of the whole by construction, and nothing is ever cut: what is too long is
left out and counted.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spotcli.records import Message, Pair

REJECTED_IN_REVIEW = "rejected in review"
TOO_LONG = "longer than max_length"
IDENTICAL = "chosen and rejected are the same"
CHANGED = "text changed by the tokenizer"


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one pair. ``chosen_ids`` and ``rejected_ids`` hold response tokens only.

    Without an y- ``rejected_ids`` is empty; only objectives that do not run it may see such a pair.
    """

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def shared(self) -> int:
        """Response tokens that both answers begin with."""
        both = zip(self.chosen_ids, self.rejected_ids, strict=False)
        return next(
            (at for at, (chosen, rejected) in enumerate(both) if chosen != rejected),
            min(len(self.chosen_ids), len(self.rejected_ids)),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longer side, prompt included."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def whole_tokens(self) -> int:
        """Tokens of two separate rows."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def shared_tokens(self) -> int:
        """Tokens of one row in which prompt and common beginning stand once."""
        return self.whole_tokens - len(self.prompt_ids) - self.shared


@dataclass
class Encoded:
    """The pairs to train on, and how many were left out for which reason: ``read == len(pairs) + sum(dropped)``."""

    pairs: list[EncodedPair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    read: int = 0


def encode(
    pairs: Iterable[Pair],
    *,
    tokenizer: Any,
    render: Callable[[list[Message]], list[int]],
    end_ids: Sequence[int],
    max_length: int,
) -> Encoded:
    """Tokenise pairs and leave out what cannot be trained on, counted by reason.

    Args:
        pairs: rows of a dataset.
        tokenizer: the policy's.
        render: chat messages to the ids of the prompt, ending where the answer starts.
        end_ids: what ends the policy's turn.
        max_length: tokens that prompt and answer may have together.
    """
    found = Encoded()
    for pair in pairs:
        found.read += 1
        one = _encode(pair, tokenizer, render, tuple(end_ids), max_length)
        if isinstance(one, str):
            found.dropped[one] += 1
        else:
            found.pairs.append(one)
    return found


def _encode(
    pair: Pair, tokenizer: Any, render: Callable[[list[Message]], list[int]], end_ids: tuple[int, ...], max_length: int
) -> EncodedPair | str:
    if pair.review == "reject":
        return REJECTED_IN_REVIEW
    texts = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
    chosen, *others = [response_ids(tokenizer, text) for text in texts]
    if chosen in others:
        return IDENTICAL
    for text, ids in zip(texts, [chosen, *others], strict=True):
        if not _kept(tokenizer, text, ids):
            return CHANGED
    cut = (pair.model_extra or {}).get("finish_reason") == "length"
    one = EncodedPair(
        prompt_ids=tuple(render(pair.messages)),
        chosen_ids=(*chosen, *end_ids),
        rejected_ids=tuple(token for ids in others for token in (*ids, *(() if cut else end_ids))),
    )
    return TOO_LONG if one.longest > max_length else one


def response_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of an answer's text. Control tokens spelled out in it stay text: they cannot end the turn."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _kept(tokenizer: Any, text: str, ids: list[int]) -> bool:
    """Whether the ids give the text back. Some tokenizers compose accents; that is no loss."""
    again = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return again == text or unicodedata.normalize("NFC", again) == unicodedata.normalize("NFC", text)
