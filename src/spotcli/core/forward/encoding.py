"""Pairs as token ids: the prompt, and the two answers in the tokens that the policy emitted or would emit.

    prompt_ids + chosen_ids       x, y+ and the end-of-turn token
    prompt_ids + rejected_ids     x, y- and the end-of-turn token (unless y- was truncated)

An answer is tokenized separately and appended to the ids of the prompt, because it was generated that way. If a model
begins its answer with a line feed, it emits a separate token for it; tokenizing the joined text could merge the line
feed with the last token of the prompt. So the prompt is always a prefix of prompt and answer. Nothing is truncated
here: a pair that is too long is dropped and counted.

If a row has ``response_ids`` (``sample.keep_tokens``), y- consists of exactly these ids. They can differ from the
tokenizer's own tokens for the same text. y+ then begins with the emitted ids up to the first difference of its text,
so that both answers share them.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count, takewhile
from typing import Any

from rapidfuzz.distance import LCSseq

from spotcli.core.edits import MAX_CELLS, words
from spotcli.errors import DataError, UserError
from spotcli.records import Pair

REJECTED_IN_REVIEW = "rejected in review"
"""Reason: a person rejected the pair."""

TOO_LONG = "longer than max_length"
"""Reason: the prompt and the longer answer have too many tokens."""

NO_REJECTED = "no rejected answer"
"""Reason: the row has no y-, and the objective compares two answers."""

IDENTICAL = "chosen and rejected are the same"
"""Reason: the two answers have the same text or the same ids."""

CHANGED = "text changed by the tokenizer"
"""Reason: decoding the ids of an answer does not restore its text."""

FOREIGN = "response_ids are not the tokens of the answer"
"""Reason: ``response_ids`` are invalid or decode to another text."""

SEAM = 64
"""Most emitted tokens that are given up to find a position where a token of the correction ends too."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one pair. ``chosen_ids`` and ``rejected_ids`` contain response tokens only.

    ``rejected_ids`` is empty if the row has no y-: an answer to keep, without an edit.
    """

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def shared(self) -> int:
        """Length of the common beginning of both answers, in tokens."""
        both = zip(self.chosen_ids, self.rejected_ids, strict=False)
        return next(
            (index for index, (chosen, rejected) in enumerate(both) if chosen != rejected),
            min(len(self.chosen_ids), len(self.rejected_ids)),
        )

    def edited(self) -> tuple[list[bool], list[bool]]:
        """Return for each token of y+ and of y- whether the other answer lacks it (alignment with the fewest edits).

        Without y- no token is edited.
        """
        if not self.rejected_ids:
            return [False] * len(self.chosen_ids), []
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
        """Tokens of the longer answer, prompt included."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def whole_tokens(self) -> int:
        """Tokens of two separate rows; of one row without y-."""
        prompts = len(self.prompt_ids) * (2 if self.rejected_ids else 1)
        return prompts + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def shared_tokens(self) -> int:
        """Tokens of one row that contains the prompt and the common beginning once."""
        return self.whole_tokens - (len(self.prompt_ids) + self.shared if self.rejected_ids else 0)


@dataclass
class Encoded:
    """The pairs to train on, and the number of dropped rows by reason: ``read == len(pairs) + dropped.total()``."""

    pairs: list[EncodedPair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    """Rows that were read."""
    emitted: int = 0
    """How many of ``pairs`` have the ids that the policy emitted as their y-, or as their y+ if there is no y-."""

    @property
    def unpaired(self) -> int:
        """How many of ``pairs`` have no y-."""
        return sum(1 for pair in self.pairs if not pair.rejected_ids)


def common_start(pairs: Sequence[EncodedPair]) -> int:
    """Return the length of the common beginning of all prompts, in tokens; 0 for a single pair.

    The last token of each prompt never counts: it predicts the first token of the answers, so it belongs to its pair.
    """
    if len(pairs) == 1:
        return 0
    columns = zip(*(pair.prompt_ids[:-1] for pair in pairs), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def row_tokens(pairs: Sequence[EncodedPair], *, rejected: bool = True) -> int:
    """Return the tokens of one row of the shared layout, with or without the rejected answers."""
    tokens = (pair.shared_tokens if rejected else len(pair.prompt_ids) + len(pair.chosen_ids) for pair in pairs)
    return sum(tokens) - common_start(pairs) * (len(pairs) - 1)


def rough_pairs(pairs: Iterable[Pair], *, max_length: int, keeps: bool = True) -> Encoded:
    """Encode words and symbols as numbered tokens, for an estimate without a tokenizer.

    Args:
        pairs: the rows.
        max_length: most tokens of prompt and answer together.
        keeps: whether rows without y- are trained on.
    """
    encoded, numbers, fresh = Encoded(), dict[str, int](), count()

    def numbered(text: str) -> tuple[int, ...]:
        return tuple(numbers.setdefault(word, next(fresh)) for word in words(text) if word != " ")

    for pair in pairs:
        encoded.read += 1
        prompt = numbered("\n".join(message["content"] or "" for message in pair.messages))
        rough = EncodedPair(prompt or (-1,), numbered(pair.chosen), numbered(pair.rejected or ""))
        reason = REJECTED_IN_REVIEW if pair.is_rejected else TOO_LONG if rough.longest > max_length else None
        if pair.rejected is None and not keeps:
            reason = NO_REJECTED
        if reason:
            encoded.dropped[reason] += 1
        else:
            encoded.pairs.append(rough)
    return encoded


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns rows of a data set into token ids, for one policy."""

    tokenizer: Any
    """The policy's tokenizer."""
    render: Callable[[Pair], list[int]]
    """A row -> the ids of its prompt, which end where the answer starts."""
    follows: Callable[[Pair, str], bool]
    """A row and an answer -> whether the chat template with the answer begins with the same prompt."""
    end_ids: Sequence[int]
    """The tokens that end the policy's turn; the last one stops generation."""
    stop_ids: Collection[int]
    """All tokens at which the policy stops."""
    max_length: int
    """Most tokens of prompt and answer together."""
    vocabulary: int | None = None
    """Rows of the model's embedding; None if unknown."""
    rejected: bool = True
    """Whether the objective uses y-; otherwise a pair whose answers are the same trains too."""
    keeps: bool = True
    """Whether rows without y- are trained on."""

    def encode(self, pairs: Iterable[Pair]) -> Encoded:
        """Encode pairs; drop and count by reason what cannot be trained on.

        Raises:
            UserError: as ``add``.
        """
        result = Encoded()
        for pair in pairs:
            self.add(pair, result)
        return result

    def add(self, pair: Pair, result: Encoded) -> None:
        """Encode one pair into the result, or count there why it is dropped.

        Raises:
            UserError: the chat template changes the prompt once it has an answer, and the row has no ``response_ids``.
            DataError: the chat template rejects the messages, or a token has no embedding; the row is not counted.
        """
        encoded = self._encoded(pair)
        result.read += 1
        if isinstance(encoded, str):
            result.dropped[encoded] += 1
        else:
            result.pairs.append(encoded[0])
            result.emitted += encoded[1]

    @cached_property
    def _stops(self) -> frozenset[int]:
        return frozenset({*self.stop_ids, *self.end_ids})

    def _encoded(self, pair: Pair) -> tuple[EncodedPair, bool] | str:
        """Return the pair and whether it has emitted ids, or the reason to drop it."""
        if pair.is_rejected:
            return REJECTED_IN_REVIEW
        if pair.rejected is None and not self.keeps:
            return NO_REJECTED
        if pair.chosen == pair.rejected:
            if self.rejected:
                return IDENTICAL
            pair = pair.model_copy(update={"rejected": None})
        extra = pair.model_extra or {}
        emitted = self._emitted(extra.get("response_ids"), pair.original)
        if emitted is None and extra.get("response_ids") is not None and pair.rejected is not None:
            return FOREIGN
        if emitted is None:
            sides = self._tokenized(pair, truncated=extra.get("finish_reason") == "length")
        elif pair.rejected is None:
            sides = (emitted, ())
        else:
            sides = self._corrected(pair.chosen, emitted)
        if isinstance(sides, str):
            return sides
        if emitted is None and not self.follows(pair, pair.original):
            raise UserError(
                "the prompt is not a prefix of prompt and response: the chat template changes the end of the prompt "
                "if an answer follows, so the prompt that the policy read is unknown",
                where=f"pair {pair.id}",
                cure="sample with keep_tokens: true, or set train.chat_template_kwargs to the values used in sampling",
            )
        encoded = EncodedPair(tuple(self.render(pair)), *sides)
        self._check_embedding(encoded)
        return TOO_LONG if encoded.longest > self.max_length else (encoded, emitted is not None)

    def _check_embedding(self, encoded: EncodedPair) -> None:
        """Check that the model has an embedding for every token.

        Raises:
            DataError: a token of the tokenizer is beyond the size of the embedding.
        """
        highest = max(chain(encoded.prompt_ids, encoded.chosen_ids, encoded.rejected_ids))
        if self.vocabulary is not None and highest >= self.vocabulary:
            raise DataError(
                f"token {highest} ({self._text([highest], skip_special=False)!r}) is beyond the model's embedding of "
                f"{self.vocabulary} tokens",
                cure="use the tokenizer of this model, or resize the embedding (model.resize_token_embeddings) first",
            )

    def _tokenized(self, pair: Pair, *, truncated: bool) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
        """Return the ids of y+ and y- from their texts, or the reason to drop the pair."""
        texts = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
        chosen, *others = [response_ids(self.tokenizer, text) for text in texts]
        if chosen in others:
            return IDENTICAL
        for text, ids in zip(texts, [chosen, *others], strict=True):
            if not _same(text, self._text(ids, skip_special=False)):
                return CHANGED
        end = () if truncated else self.end_ids
        return (*chosen, *self.end_ids), tuple(token for ids in others for token in (*ids, *end))

    def _emitted(self, ids: Any, text: str) -> tuple[int, ...] | None:
        """Return the emitted ids if they decode to the text, else None."""
        if not isinstance(ids, list) or not ids or not all(type(token) is int for token in ids):
            return None
        if not 0 <= min(ids) <= max(ids) < len(self.tokenizer):
            return None
        content = ids[: len(ids) - self.closing(ids)]
        return tuple(ids) if _same(text, self._text(content)) else None

    def closing(self, emitted: Sequence[int]) -> int:
        """Return how many of the last emitted tokens end the turn."""
        own = len(self.end_ids)
        if own and tuple(emitted[-own:]) == tuple(self.end_ids):
            return own
        return int(emitted[-1] in self._stops)

    def _corrected(self, text: str, emitted: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
        """Return y+, with the end token of the emitted y-, and y-; or the reason to drop the pair."""
        closing = self.closing(emitted)
        content = list(emitted[: len(emitted) - closing])
        ids = response_ids(self.tokenizer, text)
        if not _same(text, self._text(ids, skip_special=False)):
            return CHANGED
        if content != response_ids(self.tokenizer, self._text(content)):
            ids = self._spliced(content, ids, text)
        chosen = (*ids, *(emitted[-closing:] if closing else self.end_ids))
        return IDENTICAL if chosen == emitted else (chosen, emitted)

    def _spliced(self, emitted: list[int], own: list[int], text: str) -> list[int]:
        """Return emitted ids as long as they spell the text, then the text's own ids from a common token end on."""
        most = bisect_left(
            range(1, len(emitted) + 1), True, key=lambda n: not text.startswith(self._complete(emitted[:n]))
        )
        for kept in range(most, max(most - SEAM, 0), -1):
            start = self._text(emitted[:kept])
            index = bisect_left(range(len(own)), len(start), key=lambda n: len(self._complete(own[:n])))
            if text.startswith(start) and self._text(own[:index]) == start:
                return emitted[:kept] + own[index:]
        return own

    def _complete(self, ids: list[int]) -> str:
        """Decode ids without an incomplete character at the end, which decodes to U+FFFD."""
        return self._text(ids).rstrip("\ufffd")

    def _text(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Decode ids, with or without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
        return text


def response_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokenize the text of an answer. Control tokens in the text stay text, so they cannot end the turn."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _same(text: str, again: str) -> bool:
    """Return whether decoding restored the text. Some tokenizers compose accents; that counts as equal."""
    return again == text or unicodedata.normalize("NFC", again) == unicodedata.normalize("NFC", text)
