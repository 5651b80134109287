"""How surprised the policy is by each token of a pair's answers: -log p(token) in nats, cached beside the pairs.

    data.surprise.jsonl     one row per pair, appended as they are computed

A row counts for the text of its pair, the policy's weights and the chat template; otherwise it is computed again. The
tokens and the forward pass are those of the reference in training, with weights in ``train.dtype``.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from spotcli.appender import Appender
from spotcli.core.forward.encoding import TOO_LONG, EncodedPair
from spotcli.decisions import text_digest
from spotcli.errors import DataError, SpotError, UserError
from spotcli.inspection.editing import policy_of
from spotcli.inspection.pair_filter import Fields
from spotcli.inspection.similarity import Similarities
from spotcli.inspection.trained_tokens import PairEncoder, ids_digest
from spotcli.policies import adapters, models
from spotcli.policies.fingerprint import fingerprint
from spotcli.recipe import Recipe
from spotcli.records import Pair

if TYPE_CHECKING:
    from spotcli.core.forward.packing import Batch

VERSION = "1"
"""Version of the computation; a change makes all rows be computed again."""

CHUNK = 256
"""Pairs that are encoded and sorted by length at once."""

MICRO_TOKENS = 4096
"""Tokens of a micro-batch: some seconds of work on a CPU."""

SAVE_SECONDS = 5.0
"""Seconds between two writes: a kill loses at most the work of this time."""

_DIGITS = 4


class PairSurprise(BaseModel):
    """A row of the file: nats of each token, with the end of turn."""

    pair: str
    """Digest of prompt, y- and y+."""
    policy: str
    basis: str
    """Digest of the policy's weights, the precision and the chat template."""
    ids: str
    """Digest of the token ids."""
    shared: list[FiniteFloat] = Field(default_factory=list)
    """The tokens that both answers begin with."""
    chosen: list[FiniteFloat]
    """The other tokens of y+."""
    rejected: list[FiniteFloat]
    """The other tokens of y-."""

    @property
    def mean_chosen(self) -> float | None:
        """Mean nats per token of y+."""
        return _mean(self.shared, self.chosen)

    @property
    def mean_rejected(self) -> float | None:
        """Mean nats per token of y-; None if the pair has none."""
        return _mean(self.shared, self.rejected) if self.rejected else None


def _mean(*parts: Sequence[float]) -> float | None:
    count = sum(map(len, parts))
    return math.fsum(value for part in parts for value in part) / count if count else None


Means = tuple[float | None, float | None]
"""Mean nats per token of y+ and of y-."""


class Surprises:
    """What is known of the surprise of a file's pairs; only means and positions are in memory.

    Args:
        data: the file of pairs.
        policy: rows of other policies are not used; None uses the rows of any.
    """

    def __init__(self, data: Path, policy: str | None) -> None:
        self.path = data.with_name(f"{data.stem}.surprise.jsonl")
        self.policy = policy
        self.similarities = Similarities(data)
        self._known: dict[str, tuple[Means, str, int]] = {}
        """Digest of a pair -> means, basis, offset of its row."""
        self._is_read = False
        self._reading = threading.Lock()

    @classmethod
    def of(cls, recipe: Recipe, data: Path) -> Self:
        """The surprise under the policy of a recipe, or of the meta file of the pairs; it is not read yet."""
        try:
            return cls(data, recipe.model or policy_of(data))
        except DataError:  # where a policy is needed, this is an error
            return cls(data, None)

    def __len__(self) -> int:
        return len(self._known)

    def read_once(self) -> None:
        """Read the file if it was not read yet."""
        with self._reading:
            if not self._is_read:
                self.read()

    def read(self) -> None:
        """Read the file again. Damaged rows are left out; they are computed again."""
        known: dict[str, tuple[Means, str, int]] = {}
        offset = 0
        # A file that cannot be read knows nothing; the error is that of the computation, which writes it.
        with suppress(OSError), self.path.open("rb") if self.path.is_file() else io.BytesIO() as file:
            for line in file:
                row = _row(line)
                if row is not None and self.policy in (None, row.policy):
                    known[row.pair] = (row.mean_chosen, row.mean_rejected), row.basis, offset
                offset += len(line)
        self._known, self._is_read = known, True

    def means(self, pair: Pair) -> Means:
        """Mean nats per token of y+ and y-; None where it is not known."""
        if not self._known:
            return None, None
        known = self._known.get(text_digest(pair))
        return (None, None) if known is None else known[0]

    def row(self, pair: Pair) -> PairSurprise | None:
        """The surprise of each token of a pair; None if it is not known."""
        known = self._known.get(text_digest(pair))
        if known is None:
            return None
        row = None
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(known[2])
            row = _row(file.readline())
        return row if row is not None and row.pair == text_digest(pair) else None

    def is_known(self, pair: Pair, basis: str) -> bool:
        """Whether the surprise of a pair is known for these weights and this template."""
        known = self._known.get(text_digest(pair))
        return known is not None and known[1] == basis

    def shown(self, pair: Pair) -> str | None:
        """The means of a pair, for the line of its facts."""
        chosen, rejected = self.means(pair)
        if chosen is None:
            return None
        return f"y+ {chosen:.2f}" + ("" if rejected is None else f"  y- {rejected:.2f}") + " nats/token"

    def with_fields(self, fields: Fields[Any]) -> Fields[Any]:
        """The fields of the filter language, with ``similarity``, ``surprise`` and ``surprise_rejected``.

        A filter waits for them.
        """

        def mean(row: Any, answer: int) -> float | None:
            self.read_once()
            return self.means(row)[answer] if isinstance(row, Pair) else None

        more = {"surprise": partial(mean, answer=0), "surprise_rejected": partial(mean, answer=1)}
        return self.similarities.with_field(replace(fields, numbers={**fields.numbers, **more}))


def _row(line: bytes) -> PairSurprise | None:
    try:
        return PairSurprise.model_validate_json(line)
    except (ValidationError, RecursionError):
        return None


class Computation:
    """Computes the surprise of pairs with the policy, and appends it to the file.

    Args:
        recipe: the policy, the template's arguments, ``train.max_length`` and ``train.dtype``.
        data: the file of pairs.
        surprises: what is known.

    Raises:
        UserError: the policy is not named, or cannot be loaded.
    """

    def __init__(self, recipe: Recipe, data: Path, surprises: Surprises) -> None:
        self.surprises = surprises
        surprises.read_once()
        self.encoder = PairEncoder.load(recipe, data)
        self.dtype = recipe.train.dtype
        self.left_out: dict[str, int] = {}
        """Pairs that have no surprise, by reason."""
        name = self.encoder.policy
        weights = [fingerprint(models.resolve(part)) for part in (name, models.base_of(name)) if part]
        basis = "|".join([VERSION, *weights, str(models.torch_dtype(self.dtype)), self.encoder.template])
        self.basis = hashlib.sha256(basis.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def missing(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs whose surprise is not known, each text once."""
        seen: set[str] = set()
        for pair in pairs:
            digest = text_digest(pair)
            if digest not in seen and not self.surprises.is_known(pair, self.basis):
                seen.add(digest)
                yield pair

    def run(
        self, pairs: Iterable[Pair], advance: Callable[[int], object], stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Compute the surprise of pairs.

        Args:
            pairs: those of ``missing``.
            advance: called with the number of pairs that are done.
            stopped: whether to stop before the next micro-batch; what is done is kept.

        Raises:
            UserError: another process writes the file, or a log-probability is not finite.
            SpotError: out of memory.
        """
        import torch

        try:
            with Appender(self.surprises.path) as file:
                self._append_all(file, pairs, advance, stopped)
        except (torch.OutOfMemoryError, MemoryError):
            cure = "set a smaller train.max_length in the recipe"
            raise SpotError("out of memory while computing the surprise", cure=cure) from None
        finally:
            self.surprises.read()

    def _append_all(
        self, file: Appender, pairs: Iterable[Pair], advance: Callable[[int], object], stopped: Callable[[], bool]
    ) -> None:
        model = None
        unsaved: list[dict[str, Any]] = []
        saved = time.monotonic()
        remaining = iter(pairs)
        try:
            while chunk := list(islice(remaining, CHUNK)):
                encoded = self._encoded(chunk, advance)
                if encoded and model is None:
                    model = _load(self.encoder.policy, self.dtype)
                for members in _micro_batches(model, [pair for _, pair in encoded]):
                    if stopped():
                        return
                    values = _score(model, [encoded[index][1] for index in members])
                    for index, (chosen, rejected) in zip(members, values, strict=True):
                        unsaved.append(self._as_row(*encoded[index], chosen, rejected))
                    advance(len(members))
                    if time.monotonic() - saved > SAVE_SECONDS:
                        file.append(unsaved)
                        unsaved, saved = [], time.monotonic()
        finally:
            file.append(unsaved)

    def _encoded(self, pairs: Iterable[Pair], advance: Callable[[int], object]) -> list[tuple[str, EncodedPair]]:
        """The pairs that can be trained on, with their digests."""
        result = []
        for pair in pairs:
            try:
                encoded = self.encoder.encode(pair)
            except UserError as error:
                encoded = error.message
            if not isinstance(encoded, str) and self.encoder.is_too_long(encoded):
                encoded = TOO_LONG
            if isinstance(encoded, str):
                self.left_out[encoded] = self.left_out.get(encoded, 0) + 1
                advance(1)
            else:
                result.append((text_digest(pair), encoded))
        return result

    def _as_row(
        self, digest: str, pair: EncodedPair, chosen: Sequence[float], rejected: Sequence[float]
    ) -> dict[str, Any]:
        if not all(map(math.isfinite, (*chosen, *rejected))):
            cure = "check the model's files; it may be damaged"
            raise UserError("a log-probability is not finite", where=self.encoder.policy, cure=cure)
        shared = pair.shared
        nats = [[max(0.0, round(-value, _DIGITS)) for value in logps] for logps in (chosen, rejected)]
        row = PairSurprise(
            pair=digest,
            policy=self.encoder.policy,
            basis=self.basis,
            ids=ids_digest(pair),
            shared=nats[0][:shared],
            chosen=nats[0][shared:],
            rejected=nats[1][shared:],
        )
        return row.model_dump()


def _load(policy: str, dtype: models.Dtype) -> Any:
    """The policy, prepared to compute log-probabilities as for the reference in training.

    Raises:
        UserError: it cannot be loaded, or log-probabilities cannot be computed from its output layer.
    """
    from spotcli.core.forward import logps, shared_attention

    base = models.base_of(policy)
    model: Any = models.load_model(base or policy, dtype)
    if base is not None:
        model = adapters.merged(model, policy)
    logps.install(model)
    if shared_attention.unsupported(model.config) is None and shared_attention.window(model.config) is None:
        shared_attention.register()
        model.set_attn_implementation(shared_attention.NAME)
    return model.eval()


def _shares(model: Any) -> bool:
    """Whether the common beginnings of a pair are computed once."""
    from spotcli.core.forward import shared_attention

    return bool(model.config._attn_implementation == shared_attention.NAME)


def _micro_batches(model: Any, pairs: Sequence[EncodedPair]) -> list[list[int]]:
    """Pairs of similar length together, the longest first."""
    from spotcli.core.forward.batches import TokenLimit, sizes

    if not pairs:
        return []
    share = _shares(model)
    tokens = sizes(pairs, share=share)
    order = sorted(range(len(pairs)), key=lambda index: -tokens[index])
    return TokenLimit(MICRO_TOKENS, padded=not share).fill(order, tokens)


def _score(model: Any, pairs: Sequence[EncodedPair]) -> list[tuple[list[float], list[float]]]:
    """Log-probabilities of the tokens of y+ and of y-, of each pair."""
    import torch

    from spotcli.core.forward.packing import pack

    batch: Batch = pack(pairs, share=_shares(model)).to(next(model.parameters()).device)
    with torch.inference_mode():
        logps_N = model(**batch.model_inputs()).float()
    own = [batch.pair_N == index for index in range(len(pairs))]
    return [(logps_N[own_N & batch.chosen_N].tolist(), logps_N[own_N & batch.rejected_N].tolist()) for own_N in own]
