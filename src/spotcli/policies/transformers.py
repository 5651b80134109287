"""The transformers policy: batched by length, the shared start of the prompts computed once, one seed an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice, takewhile
from typing import TYPE_CHECKING, Any

from spotcli.policies import Answer, Failure, Request, Sampling
from spotcli.policies.models import Dtype, load_model
from spotcli.policies.prompts import Prompter, Thinking

if TYPE_CHECKING:
    import torch

# Nucleus sampling looks at this many tokens before it sorts the whole vocabulary.
CANDIDATES = 128
# Requests that are sorted by length together: many, so that batches are even; not all, so that a stream can be long.
WINDOW = 4096
# Seconds that a finished answer waits at most for others of its batch.
PATIENCE = 1.0


class TransformersPolicy:
    """A model in this process.

    Raises:
        UserError: the model is not there, or has no chat template.
    """

    engine = "transformers"
    trials_together = False

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        *,
        batch_size: int,
        dtype: Dtype = "auto",
        chat_template_kwargs: dict[str, Any] | None = None,
        thinking: Thinking = "auto",
    ) -> None:
        self.prompter = Prompter(model, chat_template_kwargs or {}, thinking)
        self.model = load_model(model, dtype)
        self.sampling = sampling
        self.batch_size = batch_size
        self._stopped = False
        kinds = set(getattr(self.model.config, "layer_types", None) or ["full_attention"])
        # A recurrent layer's state cannot be taken over from a shared prefix that padding follows.
        self._shares_prefix = kinds <= {"full_attention"}

    def facts(self, first: Request) -> dict[str, Any]:
        return {"dtype": str(self.model.dtype).removeprefix("torch."), **self.prompter.facts(first.messages)}

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        """Nothing of it outlives the process."""

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer batch by batch.

        Rounding makes an answer depend on its batch. So the same requests give the same batches, whatever of them is
        done already, and a job that was stopped ends up with the file of one that was not.
        """
        for _, same_trial in groupby(requests, key=lambda request: request.trial):
            while window := list(islice(same_trial, WINDOW)):
                prompts = {request.key: self.prompter.ids(request.messages) for request in window}
                window.sort(key=lambda request: (len(prompts[request.key]), str(request.key)))
                for at in range(0, len(window), self.batch_size):
                    batch = window[at : at + self.batch_size]
                    if not all(map(done, batch)):
                        yield from self._batch(batch, [prompts[request.key] for request in batch], done)
                    if self._stopped:
                        return

    def _batch(
        self, batch: list[Request], prompts: list[list[int]], done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Decode one batch; rows leave it as they finish."""
        import torch

        rooms = [self.prompter.room(prompt, self.sampling.max_new_tokens) for prompt in prompts]
        finished: list[Answer | Failure] = [
            Failure(request, "the prompt fills the context")
            for request, room in zip(batch, rooms, strict=True)
            if not room and not done(request)
        ]
        fitting = [at for at, room in enumerate(rooms) if room]
        if fitting:
            # As many numbers whatever the room is, so that an answer does not depend on it.
            uniforms_BT = torch.stack(
                [
                    torch.rand(self.sampling.max_new_tokens, generator=torch.Generator().manual_seed(batch[at].seed))
                    for at in fitting
                ]
            )
            since = time.monotonic()
            rows = self._decode([prompts[at] for at in fitting], [rooms[at] for at in fitting], uniforms_BT)
            with torch.inference_mode():
                for row, ids in rows:
                    request, room = batch[fitting[row]], rooms[fitting[row]]
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
        """Logits that predict each token of an answer, shape [T, V], without gradients."""
        import torch

        assert answer.token_ids is not None
        ids = [*self.prompter.ids(answer.request.messages), *answer.token_ids]
        with torch.inference_mode():
            logits: torch.Tensor = self.model(
                input_ids=torch.tensor([ids], device=self.model.device), logits_to_keep=len(answer.token_ids) + 1
            ).logits[0, :-1]
        return logits

    def _decode(
        self, prompts: list[list[int]], rooms: list[int], uniforms_BT: torch.Tensor
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield (row, generated ids) as each row ends. Layout: shared prefix | left padding | rest | generated."""
        import torch
        from transformers import DynamicCache

        device = self.model.device
        shared = shared_prefix(prompts) if self._shares_prefix else 0
        cache = DynamicCache(config=self.model.config)
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=device)
            self.model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
            if len(prompts) > 1:
                cache.batch_repeat_interleave(len(prompts))
        width = max(map(len, prompts)) - shared
        pads = [width - (len(prompt) - shared) for prompt in prompts]
        input_ids = torch.tensor([[0] * pad + prompt[shared:] for pad, prompt in zip(pads, prompts, strict=True)])
        mask = torch.tensor([[1] * shared + [0] * pad + [1] * (width - pad) for pad in pads], device=device)
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:]

        rows = list(range(len(prompts)))
        generated: list[list[int]] = [[] for _ in prompts]
        alive = [True] * len(rows)
        input_ids = input_ids.to(device)
        for step in range(uniforms_BT.shape[1]):
            logits = self.model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens = choose(logits.float(), uniforms_BT[rows, step].to(device), self.sampling)
            for at, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                if not alive[at]:
                    continue
                generated[row].append(token)
                if token in self.prompter.ends or step + 1 == rooms[row]:
                    alive[at] = False
                    yield row, generated[row]
            if not any(alive) or self._stopped:
                return
            input_ids, position_ids = tokens[:, None], position_ids[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
            # Copying the cache costs about one step, so finished rows are dropped a quarter of the batch at a time.
            if sum(alive) <= 0.75 * len(rows):
                keep = torch.tensor([at for at, living in enumerate(alive) if living], device=device)
                cache.batch_select_indices(keep)
                input_ids, position_ids, mask = input_ids[keep], position_ids[keep], mask[keep]
                rows = [row for row, living in zip(rows, alive, strict=True) if living]
                alive = [True] * len(rows)


def shared_prefix(prompts: list[list[int]]) -> int:
    """How many tokens all prompts start with, leaving each at least one: its logits choose the first token."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def choose(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw a token a row by inverting the cumulative distribution at a given uniform number.

    Order of the filters: temperature, top-k, top-p (the smallest set of tokens whose mass reaches ``top_p``); what is
    left is renormalised. ``temperature`` 0 takes the likeliest token.

    Args:
        logits_BV: float32 logits, a row an answer.
        uniforms_B: a number in [0, 1) for each row.

    Returns:
        Token ids, shape [B].
    """
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    scaled_BV = logits_BV / sampling.temperature
    vocabulary = scaled_BV.shape[-1]
    limit = min(sampling.top_k or vocabulary, vocabulary)
    width = min(limit, CANDIDATES)
    top = scaled_BV.topk(width, sorted=True)
    # Top-k renormalises over the k kept tokens; without it the mass is the whole vocabulary's.
    mass_B = (top.values if limit == width else scaled_BV).logsumexp(-1, keepdim=True)
    if width < limit and bool(((top.values - mass_B).exp().sum(-1) < sampling.top_p).any()):
        top = scaled_BV.topk(limit, sorted=True)
        mass_B = top.values.logsumexp(-1, keepdim=True)
    probabilities_BK = (top.values - mass_B).exp()
    cumulative_BK = probabilities_BK.cumsum(-1)
    # A token stays when the mass before it is still below top_p, so the likeliest always stays.
    kept_BK = probabilities_BK * ((cumulative_BK - probabilities_BK) < sampling.top_p)
    cumulative_BK = kept_BK.cumsum(-1)
    drawn_B1 = uniforms_B[:, None] * cumulative_BK[:, -1:]
    at_B1 = (cumulative_BK <= drawn_B1).sum(-1, keepdim=True).clamp(max=kept_BK.shape[-1] - 1)
    # Rounding can land behind the last kept token.
    last_B1 = (kept_BK > 0).sum(-1, keepdim=True) - 1
    return top.indices.gather(-1, at_B1.minimum(last_B1)).squeeze(-1)
