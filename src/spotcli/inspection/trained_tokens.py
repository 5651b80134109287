"""Which tokens training would see of a pair: encoded and masked by the code that training runs.

prompt | shared prefix | kept and edited tokens of y-, end of turn
                       | kept and edited tokens of y+, end of turn
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from spotcli.core.forward.encoding import Encoded, EncodedPair, Encoder
from spotcli.errors import UserError
from spotcli.inspection.editing import policy_of
from spotcli.policies.empty_model import empty_model, token_limits
from spotcli.policies.pair_encoder import pair_encoder, pair_prompter
from spotcli.recipe import Recipe
from spotcli.records import Pair

if TYPE_CHECKING:
    from spotcli.policies.prompter import Prompter

Span = Literal["prompt", "shared", "kept", "edited", "end"]
SPANS: dict[Span, str] = {
    "prompt": "prompt",
    "shared": "shared",
    "kept": "kept",
    "edited": "edited",
    "end": "end of turn",
}
"""Parts of what is trained, with their names on the screen; ``shared``: before the first edit."""

BYTES_OF_A_CHARACTER = 4
"""Most tokens of a byte each that spell one character."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a pair."""

    id: int
    text: str
    """What it adds to the text; empty if the next token completes its character."""
    span: Span
    trained: bool
    """Whether it carries loss."""
    special: bool


@dataclass(frozen=True)
class PairTokens:
    """The tokens of one pair."""

    prompt: tuple[Token, ...]
    chosen: tuple[Token, ...]
    """y+ with the end of turn."""
    rejected: tuple[Token, ...]
    """y- with the end of turn, unless it was truncated; empty if the row has none."""
    shared: int
    """Tokens that both answers begin with."""
    digest: str
    """Identifies the ids."""
    notes: tuple[str, ...] = ()
    """What training would do with the pair, where that is not to train on all of it."""

    def counts(self, answer: Sequence[Token]) -> Counter[Span]:
        """Return the tokens of each part, for one answer with the prompt."""
        return Counter(token.span for token in (*self.prompt, *answer))


@dataclass(frozen=True)
class PairEncoder:
    """Turns pairs into tokens for one policy."""

    policy: str
    prompter: Prompter
    encoder: Encoder
    objective: str

    @classmethod
    def load(cls, recipe: Recipe, data: Path) -> Self:
        """Load the policy's tokenizer.

        Raises:
            UserError: the policy is not named, or its tokenizer cannot be loaded.
        """
        recipe = with_policy(recipe, data)
        name = recipe.model or ""
        prompter = pair_prompter(recipe)
        encoder = pair_encoder(prompter, recipe.train, token_limits(empty_model(name)))
        return cls(name, prompter, encoder, recipe.train.objective)

    @property
    def template(self) -> str:
        """What the rendering depends on: the chat template, its arguments, and the end of turn."""
        return f"{self.encoder.tokenizer.get_chat_template()}|{self.prompter.template_kwargs}|{self.prompter.end.ids}"

    def encode(self, pair: Pair) -> EncodedPair | str:
        """Return the ids of a pair of any length, also of a rejected one, or why it cannot be trained on.

        Raises:
            UserError: the chat template does not fit the pair, or a token has no embedding.
        """
        result = Encoded()
        unlimited = replace(self.encoder, max_length=sys.maxsize)
        unlimited.add(pair.model_copy(update={"review": None}), result)
        return result.pairs[0] if result.pairs else next(iter(result.dropped))

    def is_too_long(self, pair: EncodedPair) -> bool:
        """Whether training leaves a pair out because of its length."""
        return pair.longest > self.encoder.max_length

    def tokens(self, pair: Pair) -> PairTokens | str:
        """Return the tokens of a pair, or why it cannot be trained on.

        Raises:
            UserError: as ``encode``.
        """
        encoded = self.encode(pair)
        if isinstance(encoded, str):
            return encoded
        prompt, sides = encoded.prompt_ids, (encoded.chosen_ids, encoded.rejected_ids)
        trained, edited = self._trained(encoded), encoded.edited()
        answers = []
        for ids, carries, changed in zip(sides, trained, edited, strict=True):
            end = len(ids) - (self.encoder.closing(ids) if ids else 0)
            spans: list[Span] = ["prompt"] * len(prompt)
            spans += [
                "end" if place >= end else "shared" if place < encoded.shared else "edited" if change else "kept"
                for place, change in enumerate(changed)
            ]
            answers.append(self._as_tokens((*prompt, *ids), spans, carries))
        chosen, rejected = answers
        notes = tuple(self._notes(pair, encoded))
        start = len(prompt)
        return PairTokens(chosen[:start], chosen[start:], rejected[start:], encoded.shared, ids_digest(encoded), notes)

    def _as_tokens(self, ids: Sequence[int], spans: Sequence[Span], carries: Sequence[bool]) -> tuple[Token, ...]:
        tokenizer = self.encoder.tokenizer
        added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
        special = {*tokenizer.all_special_ids, *added}
        texts = token_texts(tokenizer, ids)
        return tuple(
            Token(token, text, span, trained, token in special)
            for token, text, span, trained in zip(ids, texts, spans, carries, strict=True)
        )

    def _trained(self, pair: EncodedPair) -> tuple[list[bool], list[bool]]:
        """Whether each token of prompt and y+, and of prompt and y-, carries loss: the mask of a training step."""
        from spotcli.core.forward.packing import pack

        rejected = self.encoder.rejected and bool(pair.rejected_ids)
        batch = pack([pair], share=False, rejected=rejected)
        width = batch.ids_RL.shape[1]
        targets = {place + 1 for place in batch.rows_N.tolist()}
        start = len(pair.prompt_ids)
        chosen = [place in targets for place in range(start + len(pair.chosen_ids))]
        size = start + len(pair.rejected_ids)
        return chosen, [rejected and width + place in targets for place in range(size)]

    def _notes(self, pair: Pair, encoded: EncodedPair) -> list[str]:
        notes = []
        if pair.is_rejected:
            notes.append("rejected in review: training leaves this pair out")
        if self.is_too_long(encoded):
            limit = f"{encoded.longest:,} tokens, more than train.max_length allows ({self.encoder.max_length:,})"
            notes.append(f"{limit}: training leaves this pair out and truncates nothing")
        extra = pair.model_extra or {}
        if not encoded.rejected_ids and self.encoder.rejected:
            notes.append("no y-: an answer to keep, whose reward alone is trained")
        elif encoded.rejected_ids and not self.encoder.rejected:
            notes.append(f"train.objective {self.objective} does not train on y-")
        if encoded.rejected_ids and not self.encoder.closing(encoded.rejected_ids):
            notes.append("y- was truncated: it has no end of turn")
        if extra.get("response_ids") is not None:
            notes.append("y- has the token ids that the policy emitted")
        return notes


def with_policy(recipe: Recipe, data: Path) -> Recipe:
    """The recipe with a model: its own, else the policy in whose tokens the pairs of a file were measured.

    Raises:
        UserError: there is neither.
    """
    name = recipe.model or policy_of(data)
    if name is None:
        raise UserError(
            "the policy is not known: neither a recipe nor a meta file names it",
            where=str(data),
            cure="pass --recipe FILE",
        )
    return recipe.model_copy(update={"model": name})


def ids_digest(pair: EncodedPair) -> str:
    """Identify the ids of a pair by 16 hex digits."""
    text = f"{pair.prompt_ids}|{pair.chosen_ids}|{pair.rejected_ids}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; a token that ends inside a character adds nothing, the next one the whole."""
    texts: list[str] = []
    start = done = 0
    before = ""
    for end in range(1, len(ids) + 1):
        text: str = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd") and end < len(ids) and end - done < BYTES_OF_A_CHARACTER:
            texts.append("")
            continue
        texts.append(text[len(before) :])
        # The last token stays: some tokenizers drop a blank at the start of a text.
        start, done = done, end
        before = tokenizer.decode(ids[start:done], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return texts
