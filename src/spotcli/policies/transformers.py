"""The transformers policy: batched by length, the shared start of the prompts computed once, one seed an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from spotcli.policies import Answer, Request, Sampling
from spotcli.policies.models import Dtype, load_model, load_tokenizer, render

if TYPE_CHECKING:
    import torch

# Nucleus sampling looks at this many tokens before it sorts the whole vocabulary.
CANDIDATES = 128


class TransformersPolicy:
    """A model in this process.

    Raises:
        UserError: the model is not there, or has no chat template.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        *,
        batch_size: int,
        dtype: Dtype = "auto",
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer = load_tokenizer(model)
        self.model = load_model(model, dtype)
        self.sampling = sampling
        self.batch_size = batch_size
        self.template_kwargs = chat_template_kwargs or {}
        self._ids: dict[str, list[int]] = {}
        ends = self.model.generation_config.eos_token_id if self.model.generation_config else None
        self.ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        kinds = set(getattr(self.model.config, "layer_types", None) or ["full_attention"])
        # A recurrent layer's state cannot be taken over from a shared prefix that padding follows.
        self._shares_prefix = kinds <= {"full_attention"}

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Batches of prompts of similar length, so that little is padded."""
        by_length = sorted(requests, key=lambda request: (len(self._render(request)), str(request.key)))
        return [list(by_length[at : at + self.batch_size]) for at in range(0, len(by_length), self.batch_size)]

    def _render(self, request: Request) -> list[int]:
        key = str(request.messages)
        if key not in self._ids:
            self._ids[key] = render(self.tokenizer, request.messages, self.template_kwargs)
        return self._ids[key]

    def answer(self, batch: list[Request]) -> Iterator[Answer]:
        """Decode one batch; rows leave it as they finish."""
        import torch

        prompts = [self._render(request) for request in batch]
        uniforms_BT = torch.stack(
            [
                torch.rand(self.sampling.max_new_tokens, generator=torch.Generator().manual_seed(request.seed))
                for request in batch
            ]
        )
        with torch.inference_mode():
            for row, ids in self._decode(prompts, uniforms_BT):
                stopped = ids[-1] in self.ends
                text = str(self.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True))
                yield Answer(batch[row], text, "stop" if stopped else "length", ids)

    def logits(self, answer: Answer) -> torch.Tensor:
        """Logits that predict each token of an answer, shape [T, V], without gradients."""
        import torch

        ids = [*self._render(answer.request), *answer.token_ids]
        with torch.inference_mode():
            logits: torch.Tensor = self.model(
                input_ids=torch.tensor([ids], device=self.model.device), logits_to_keep=len(answer.token_ids) + 1
            ).logits[0, :-1]
        return logits

    def _decode(self, prompts: list[list[int]], uniforms_BT: torch.Tensor) -> Iterator[tuple[int, list[int]]]:
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
                if token in self.ends or step + 1 == uniforms_BT.shape[1]:
                    alive[at] = False
                    yield row, generated[row]
            if not any(alive):
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
