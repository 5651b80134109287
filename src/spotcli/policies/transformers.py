"""The transformers engine: a slot is refilled when its answer ends, and a shared prompt prefix is computed once."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from typing import TYPE_CHECKING, Any, Self

from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling
from spotcli.policies.models import Dtype, load_model
from spotcli.policies.prompter import Prompter, Thinking

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel

CANDIDATES = 128
"""Most likely tokens that sampling tries before it sorts the whole vocabulary."""
WINDOW = 4096
"""Requests that are sorted by length together: many, so that batches are even; not all, so that requests can be a
stream."""
BLOCK = 4
"""Batches that are answered together. More of them leave fewer slots empty, but a stop costs more: see ``answers``."""
PATIENCE = 1.0
"""Seconds that a finished answer waits at most for others to be yielded with."""


@dataclass(frozen=True, kw_only=True)
class TransformersFacts(EngineFacts):
    dtype: str


@dataclass
class _Batch:
    """Answers that are decoded together, in a key-value cache of width W."""

    cache: DynamicCache
    mask_BW: torch.Tensor
    """1 where a column of the cache belongs to the row, 0 where it is padding."""
    tokens_B: torch.Tensor
    """The last token of each row, not in the cache yet."""

    def keep(self, rows: list[int]) -> _Batch:
        import torch

        self.cache.batch_select_indices(torch.tensor(rows, device=self.mask_BW.device))
        return _Batch(self.cache, self.mask_BW[rows], self.tokens_B[rows])


class TransformersPolicy:
    """Answers with a model in this process, which may be a model in training.

    Args:
        model: the model, in eval mode while it answers.
        prompter: the model's tokenizer and chat template.
        sampling: the parameters of every answer.
        batch_size: answers that are decoded together.
    """

    engine = "transformers"
    background = False
    trials_together = False

    @classmethod
    def load(
        cls,
        model: str,
        sampling: Sampling,
        *,
        batch_size: int,
        dtype: Dtype = "auto",
        chat_template_kwargs: dict[str, Any] | None = None,
        thinking: Thinking = "auto",
    ) -> Self:
        """Load a model by name.

        Raises:
            UserError: the model is not found, or has no tokenizer.
            RecipeError: the chat template has no switch for thinking.
        """
        prompter = Prompter(model, chat_template_kwargs or {}, thinking)
        return cls(load_model(model, dtype), prompter, sampling, batch_size=batch_size)

    def __init__(self, model: PreTrainedModel, prompter: Prompter, sampling: Sampling, *, batch_size: int) -> None:
        self.model = model
        self.prompter = prompter
        self.sampling = sampling
        self.batch_size = batch_size
        self._stopped = False
        # transformers 5.24 renamed the argument, and models with older code keep the old name.
        arguments = inspect.signature(type(self.model).forward).parameters
        self._cache = "cache" if "cache" in arguments else "past_key_values"
        kinds = set(getattr(self.model.config, "layer_types", None) or ["full_attention"])
        # The state of a recurrent layer cannot be reused when padding follows the shared prefix, and the keys of a
        # sliding window cannot be moved to other columns.
        self._full_attention = kinds <= {"full_attention"}

    def facts(self, first: Request) -> TransformersFacts:
        dtype = str(self.model.dtype).removeprefix("torch.")
        return TransformersFacts(dtype=dtype, prompts=self.prompter.facts(first.messages, first.tools))

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        """Nothing to end: the engine is this process."""

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer block by block; in a block, the next request takes the slot of an answer that ended.

        Because of rounding, an answer depends on the answers in its batch. So blocks depend on the requests alone and
        not on which of them are done, and a run that was stopped and resumed writes the same file as one that was not.
        """
        size = self.batch_size * (BLOCK if self._full_attention else 1)
        for _, same_trial in groupby(requests, key=lambda request: (request.group, request.trial)):
            while window := list(islice(same_trial, WINDOW)):
                prompts = {request.key: self.prompter.prompt(request) for request in window}
                window.sort(key=lambda request: (len(prompts[request.key]), str(request.key)))
                for start in range(0, len(window), size):
                    block = window[start : start + size]
                    if not all(map(done, block)):
                        yield from self._block(block, [prompts[request.key] for request in block], done)
                    if self._stopped:
                        return

    def _block(
        self, block: list[Request], prompts: list[list[int]], done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer one block; finished answers are yielded within about ``PATIENCE`` seconds."""
        import torch

        limits = [request.limit(self.sampling) for request in block]
        rooms = [self.prompter.room(prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)]
        finished: list[Answer | Failure] = [
            Failure(request, "the prompt fills the context")
            for request, room in zip(block, rooms, strict=True)
            if not room and not done(request)
        ]
        fitting = [index for index, room in enumerate(rooms) if room]
        if fitting:
            # The same count of numbers for every row, so that an answer does not depend on its own limit.
            uniforms_NT = torch.stack(
                [
                    torch.rand(max(limits), generator=torch.Generator().manual_seed(block[index].seed))
                    for index in fitting
                ]
            )
            since = time.monotonic()
            rows = self._decode([prompts[index] for index in fitting], [rooms[index] for index in fitting], uniforms_NT)
            with torch.inference_mode():
                for row, ids in rows:
                    request, room = block[fitting[row]], rooms[fitting[row]]
                    if not done(request):
                        finished.append(self._answer(request, ids, room))
                    if finished and time.monotonic() - since > PATIENCE:
                        yield finished
                        finished, since = [], time.monotonic()
        if finished:
            yield finished

    def _answer(self, request: Request, ids: list[int], room: int) -> Answer:
        stopped = ids[-1] in self.prompter.ends
        text = str(self.prompter.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True))
        return Answer(request, text, "stop" if stopped else "length", ids, len(ids), room)

    def logits(self, answer: Answer) -> torch.Tensor:
        """Logits that predict each token of an answer, without gradients.

        Returns:
            Shape [T, V]: tokens of the answer, vocabulary.
        """
        import torch

        assert answer.token_ids is not None
        ids = [*self.prompter.prompt(answer.request), *answer.token_ids]
        with torch.inference_mode():
            logits: torch.Tensor = self.model(
                input_ids=torch.tensor([ids], device=self.model.device), logits_to_keep=len(answer.token_ids) + 1
            ).logits[0, :-1]
        return logits

    def _decode(
        self, prompts: list[list[int]], rooms: list[int], uniforms_NT: torch.Tensor
    ) -> Iterator[tuple[int, list[int]]]:
        """Generate an answer to each prompt.

        Args:
            prompts: token ids.
            rooms: tokens that each answer may have.
            uniforms_NT: one number in [0, 1) per prompt and generated token.

        Yields:
            The index of the prompt and the generated ids, as soon as that answer ends.
        """
        import torch

        device = self.model.device
        waiting = deque(range(len(prompts)))
        generated: list[list[int]] = [[] for _ in prompts]
        unfinished = set(waiting)
        slots: list[int] = []
        parts: list[_Batch] = []

        def next_tokens(rows: list[int], logits_BV: torch.Tensor) -> torch.Tensor:
            steps = [min(len(generated[row]), uniforms_NT.shape[1] - 1) for row in rows]
            tokens_B = choose_tokens(logits_BV.float(), uniforms_NT[rows, steps].to(device), self.sampling)
            for row, token in zip(rows, tokens_B.tolist(), strict=True):
                if row in unfinished:
                    generated[row].append(token)
            return tokens_B

        while waiting or slots:
            # Copying the cache costs about one step, so slots are refilled a quarter of them at a time.
            kept = [slot for slot, row in enumerate(slots) if row in unfinished]
            if len(kept) <= 0.75 * (self.batch_size if waiting else len(slots)):
                slots = [slots[slot] for slot in kept]
                parts = [part.keep(kept) for part in parts if kept]
                if joining := [waiting.popleft() for _ in range(min(len(waiting), self.batch_size - len(kept)))]:
                    cache, mask_BW, logits_BV = self._prefill([prompts[row] for row in joining])
                    parts.append(_Batch(cache, mask_BW, next_tokens(joining, logits_BV)))
                    slots += joining
                if not slots:
                    return
                if len(parts) > 1:
                    parts = [self._merge(parts)]
            else:
                batch = parts[0]
                batch.mask_BW = torch.cat([batch.mask_BW, batch.mask_BW.new_ones(len(slots), 1)], dim=-1)
                logits_BV = self.model(
                    input_ids=batch.tokens_B[:, None],
                    attention_mask=batch.mask_BW,
                    position_ids=batch.mask_BW.sum(-1, keepdim=True) - 1,
                    use_cache=True,
                    logits_to_keep=1,
                    **{self._cache: batch.cache},
                ).logits[:, -1]
                batch.tokens_B = next_tokens(slots, logits_BV)
            for row in slots:
                if row in unfinished and (
                    generated[row][-1] in self.prompter.ends or len(generated[row]) == rooms[row]
                ):
                    unfinished.remove(row)
                    yield row, generated[row]
            if self._stopped:
                return

    def _prefill(self, prompts: list[list[int]]) -> tuple[DynamicCache, torch.Tensor, torch.Tensor]:
        """Run the prompts through the model.

        Returns:
            The cache, laid out as shared prefix | left padding | rest of each prompt; its mask [B, W]; and the logits
            [B, V] after each prompt.
        """
        import torch
        from transformers import DynamicCache

        device = self.model.device
        cache = DynamicCache(config=self.model.config)
        shared = shared_prefix(prompts) if self._full_attention and len(prompts) > 1 else 0
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=device)
            self.model(input_ids=prefix, use_cache=True, logits_to_keep=1, **{self._cache: cache})
            cache.batch_repeat_interleave(len(prompts))
        width = max(map(len, prompts)) - shared
        pads = [width - (len(prompt) - shared) for prompt in prompts]
        input_ids = torch.tensor([[0] * pad + prompt[shared:] for pad, prompt in zip(pads, prompts, strict=True)])
        mask_BW = torch.tensor([[1] * shared + [0] * pad + [1] * (width - pad) for pad in pads], device=device)
        logits_BV = self.model(
            input_ids=input_ids.to(device),
            attention_mask=mask_BW,
            position_ids=(mask_BW.cumsum(-1) - 1).clamp(min=0)[:, shared:],
            use_cache=True,
            logits_to_keep=1,
            **{self._cache: cache},
        ).logits[:, -1]
        return cache, mask_BW, logits_BV

    def _merge(self, parts: list[_Batch]) -> _Batch:
        """Merge batches into one, padded on the left to the longest."""
        import torch
        from torch.nn.functional import pad
        from transformers import DynamicCache

        # Columns on the left that no row uses any more are dropped.
        starts = [int(part.mask_BW.any(0).int().argmax()) for part in parts]
        masks = [part.mask_BW[:, start:] for part, start in zip(parts, starts, strict=True)]
        width = max(mask.shape[1] for mask in masks)

        def aligned(states: list[torch.Tensor]) -> torch.Tensor:
            used = [state[:, :, start:] for state, start in zip(states, starts, strict=True)]
            return torch.cat([pad(state, (0, 0, width - state.shape[2], 0)) for state in used])

        cache = DynamicCache(config=self.model.config)
        for index, layers in enumerate(zip(*(part.cache.layers for part in parts), strict=True)):
            cache.update(aligned([layer.keys for layer in layers]), aligned([layer.values for layer in layers]), index)
        mask_BW = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
        return _Batch(cache, mask_BW, torch.cat([part.tokens_B for part in parts]))


def shared_prefix(prompts: list[list[int]]) -> int:
    """How many first tokens all prompts share, without the last token of each: its logits predict the answer."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def choose_tokens(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw one token per row by inverting the cumulative distribution at a given uniform number.

    Order of the filters: temperature, top-k, top-p (the smallest set of tokens whose mass reaches ``top_p``); the kept
    tokens are renormalised. ``temperature`` 0 takes the most likely token.

    Args:
        logits_BV: float32 logits, one row per answer.
        uniforms_B: one number in [0, 1) per row.
        sampling: the filters.

    Returns:
        Token ids, shape [B].
    """
    sampling = sampling.without_gaps()
    assert sampling.temperature is not None
    assert sampling.top_p is not None
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    scaled_BV = logits_BV / sampling.temperature
    vocabulary = scaled_BV.shape[-1]
    limit = min(sampling.top_k or vocabulary, vocabulary)
    width = limit if limit < vocabulary else min(CANDIDATES, vocabulary)
    top = scaled_BV.topk(width, sorted=True)
    # Top-k renormalises over the k kept tokens; without it, the whole vocabulary counts.
    mass_B1 = (top.values if width == limit else scaled_BV).logsumexp(-1, keepdim=True)
    index_B, inside_B = _draw((top.values - mass_B1).exp(), uniforms_B, sampling.top_p, whole=width == limit)
    tokens_B = top.indices.gather(-1, index_B[:, None]).squeeze(-1)
    if not bool(inside_B.all()):
        # Sorting a vocabulary takes longer than a step of a small model, so it is done for the rows that need it.
        rows = ~inside_B
        ordered = scaled_BV[rows].sort(descending=True)
        index_R, _ = _draw((ordered.values - mass_B1[rows]).exp(), uniforms_B[rows], sampling.top_p, whole=True)
        tokens_B[rows] = ordered.indices.gather(-1, index_R[:, None]).squeeze(-1)
    return tokens_B


def _draw(
    probabilities_BK: torch.Tensor, uniforms_B: torch.Tensor, top_p: float, *, whole: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from the nucleus of sorted probabilities.

    Args:
        probabilities_BK: the most likely tokens, in descending order.
        whole: they are all tokens that can be drawn.

    Returns:
        The drawn index [B]; and whether it holds [B], as it does not if it depends on less likely tokens.
    """
    cumulative_BK = probabilities_BK.cumsum(-1)
    uniforms_B1 = uniforms_B[:, None]
    known_B1 = cumulative_BK[:, -1:]
    inside_B1 = known_B1 >= top_p if top_p < 1 else uniforms_B1 < known_B1
    # A token is kept if the mass before it is below top_p, so the most likely one is always kept.
    kept_BK = probabilities_BK * ((cumulative_BK - probabilities_BK) < top_p)
    cumulative_BK = kept_BK.cumsum(-1)
    drawn_B1 = uniforms_B1 * (cumulative_BK[:, -1:] if whole or top_p < 1 else 1.0)
    index_B1 = (cumulative_BK <= drawn_B1).sum(-1, keepdim=True)
    # Rounding can reach past the last kept token.
    last_B1 = (kept_BK > 0).sum(-1, keepdim=True) - 1
    return index_B1.minimum(last_B1).squeeze(-1), inside_B1.squeeze(-1) | whole
