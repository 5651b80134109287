"""Pairs as token ids: what the policy saw, and the two answers as it emitted them, or would have.

    prompt_ids + chosen_ids       x, y+ and the end-of-turn token
    prompt_ids + rejected_ids     x, y- and the end-of-turn token (unless y- was cut at the token limit)

An answer is tokenised by itself and set behind the prompt's ids, because that is how it was generated: a model that
begins its answer with a line feed emits a token of its own, where tokenising the joined text could merge it with the
prompt's last one. So the prompt is a prefix of the whole by construction, and nothing is ever cut: what is too long is
left out and counted.

Where a row has ``response_ids`` (``sample.keep_tokens``), y- is exactly those. A model may cut a text into other tokens
than its tokenizer would; y+ then keeps the emitted ones up to where its text departs, so that both answers share them.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rapidfuzz.distance import LCSseq

from spotcli.core.edits import MAX_CELLS, words
from spotcli.errors import UserError
from spotcli.records import Message, Pair

REJECTED_IN_REVIEW = "rejected in review"
TOO_LONG = "longer than max_length"
IDENTICAL = "chosen and rejected are the same"
CHANGED = "text changed by the tokenizer"
FOREIGN = "response_ids are not the tokens of the answer"

SEAM = 64
"""Emitted tokens that are given up at most to find an end that a correction's own tokens have too."""


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

    def edited(self) -> tuple[list[bool], list[bool]]:
        """Of each token of y+ and of y-, whether the other answer lacks it, by the alignment with the fewest edits."""
        head = self.shared
        old, new = self.rejected_ids[head:], self.chosen_ids[head:]
        chosen, rejected = [False] * head + [True] * len(new), [False] * head + [True] * len(old)
        if len(old) * len(new) <= MAX_CELLS:
            for step in LCSseq.opcodes(old, new):
                if step.tag == "equal":
                    for side, start, end in (
                        (rejected, step.src_start, step.src_end), (chosen, step.dest_start, step.dest_end),
                    ):  # fmt: skip
                        side[head + start : head + end] = [False] * (end - start)
        return chosen, rejected

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
    emitted: int = 0
    """Of ``pairs``: those whose y- (or lone y+) is made of the ids that the policy emitted."""


def encode(
    pairs: Iterable[Pair],
    *,
    tokenizer: Any,
    render: Callable[[list[Message]], list[int]],
    follows: Callable[[list[Message], str], bool],
    end_ids: Sequence[int],
    ends: Collection[int],
    max_length: int,
) -> Encoded:
    """Tokenise pairs and leave out what cannot be trained on, counted by reason.

    Args:
        pairs: rows of a dataset.
        tokenizer: the policy's.
        render: chat messages to the ids of the prompt, ending where the answer starts.
        follows: whether the chat template, given the answer too, still begins with that prompt.
        end_ids: what ends the policy's turn.
        ends: all tokens at which the policy stops.
        max_length: tokens that prompt and answer may have together.

    Raises:
        UserError: an answer does not stand behind its prompt, and no emitted ids say what does.
    """
    turn = _Turn(tokenizer, render, follows, tuple(end_ids), frozenset({*ends, *end_ids}), max_length)
    found = Encoded()
    for pair in pairs:
        found.read += 1
        one = turn.encoded(pair)
        if isinstance(one, str):
            found.dropped[one] += 1
        else:
            found.pairs.append(one[0])
            found.emitted += one[1]
    return found


def rough_pairs(pairs: Iterable[Pair], *, max_length: int) -> Encoded:
    """Pairs as words and signs, numbered: near enough for an estimate where no tokenizer is at hand."""
    found, known, fresh = Encoded(), dict[str, int](), count()

    def numbered(text: str) -> tuple[int, ...]:
        return tuple(known.setdefault(word, next(fresh)) for word in words(text) if word != " ")

    for pair in pairs:
        found.read += 1
        prompt = numbered("\n".join(message["content"] for message in pair.messages))
        one = EncodedPair(prompt or (-1,), numbered(pair.chosen), numbered(pair.rejected or ""))
        reason = REJECTED_IN_REVIEW if pair.review == "reject" else TOO_LONG if one.longest > max_length else None
        if reason:
            found.dropped[reason] += 1
        else:
            found.pairs.append(one)
    return found


@dataclass(frozen=True)
class _Turn:
    """How the policy's turn is put into ids."""

    tokenizer: Any
    render: Callable[[list[Message]], list[int]]
    follows: Callable[[list[Message], str], bool]
    end_ids: tuple[int, ...]
    ends: frozenset[int]
    max_length: int

    def encoded(self, pair: Pair) -> tuple[EncodedPair, bool] | str:
        """The pair and whether it is made of emitted ids; or why it cannot be trained on."""
        if pair.review == "reject":
            return REJECTED_IN_REVIEW
        if pair.chosen == pair.rejected:
            return IDENTICAL
        extra = pair.model_extra or {}
        emitted = self._emitted(extra.get("response_ids"), pair.original)
        if emitted is None and extra.get("response_ids") is not None and pair.rejected is not None:
            return FOREIGN
        if emitted is None:
            sides = self._tokenised(pair, cut=extra.get("finish_reason") == "length")
        elif pair.rejected is None:
            sides = (emitted, ())
        else:
            sides = self._corrected(pair.chosen, emitted)
        if isinstance(sides, str):
            return sides
        if emitted is None and not self.follows(pair.messages, pair.original):
            raise UserError(
                "the prompt is not a prefix of prompt and response: given the answer, the chat template writes the end "
                "of the prompt in another way, so nothing says what the policy read before it answered",
                where=f"pair {pair.id}",
                cure="sample with keep_tokens: true; or give train.chat_template_kwargs what sampling had",
            )
        one = EncodedPair(tuple(self.render(pair.messages)), *sides)
        return TOO_LONG if one.longest > self.max_length else (one, emitted is not None)

    def _tokenised(self, pair: Pair, *, cut: bool) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
        """Both answers, from their texts."""
        texts = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
        chosen, *others = [response_ids(self.tokenizer, text) for text in texts]
        if chosen in others:
            return IDENTICAL
        for text, ids in zip(texts, [chosen, *others], strict=True):
            if not _same(text, self._text(ids, special=False)):
                return CHANGED
        end = () if cut else self.end_ids
        return (*chosen, *self.end_ids), tuple(token for ids in others for token in (*ids, *end))

    def _emitted(self, ids: Any, text: str) -> tuple[int, ...] | None:
        """The emitted ids, where they are those of the text."""
        if not isinstance(ids, list) or not ids or not all(type(token) is int for token in ids):
            return None
        if not 0 <= min(ids) <= max(ids) < len(self.tokenizer):
            return None
        words = ids[:-1] if ids[-1] in self.ends else ids
        return tuple(ids) if _same(text, self._text(words)) else None

    def _corrected(self, text: str, emitted: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
        """y+ beside an y- that was emitted as these ids, ending as that one did; and y-."""
        stopped = emitted[-1] in self.ends
        words = list(emitted[:-1] if stopped else emitted)
        ids = response_ids(self.tokenizer, text)
        if not _same(text, self._text(ids, special=False)):
            return CHANGED
        if words != response_ids(self.tokenizer, self._text(words)):
            ids = self._spliced(words, ids, text)
        chosen = (*ids, *(emitted[-1:] if stopped else self.end_ids))
        return IDENTICAL if chosen == emitted else (chosen, emitted)

    def _spliced(self, emitted: list[int], own: list[int], text: str) -> list[int]:
        """Emitted ids while they spell the text, then the text's own, joined where both have a token's end."""
        most = bisect_left(
            range(1, len(emitted) + 1), True, key=lambda n: not text.startswith(self._whole(emitted[:n]))
        )
        for kept in range(most, max(most - SEAM, 0), -1):
            start = self._text(emitted[:kept])
            at = bisect_left(range(len(own)), len(start), key=lambda n: len(self._whole(own[:n])))
            if text.startswith(start) and self._text(own[:at]) == start:
                return emitted[:kept] + own[at:]
        return own

    def _whole(self, ids: list[int]) -> str:
        """What ids spell, without the part of a character at their end, which is spelled as U+FFFD."""
        return self._text(ids).rstrip("\ufffd")

    def _text(self, ids: Sequence[int], *, special: bool = True) -> str:
        """What ids spell, without special tokens or, where ``special`` is off, with them."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=special, clean_up_tokenization_spaces=False)
        return text


def response_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of an answer's text. Control tokens spelled out in it stay text: they cannot end the turn."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _same(text: str, again: str) -> bool:
    """Whether ids gave the text back. Some tokenizers compose accents; that is no loss."""
    return again == text or unicodedata.normalize("NFC", again) == unicodedata.normalize("NFC", text)
