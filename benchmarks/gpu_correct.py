"""Correctness on the device: shared rows, the output layer, adapters, saving and resuming.

Tolerances:

    float32     2e-4 of the largest value. Both sides add the same numbers in another order: eps (6e-8) times some
                thousand additions. TF32 is off.
    bfloat16    each number has 8 significant bits, so two ways to compute the same differ by about a percent. A float32
                pass is the truth: the shared rows may be at most 3 times as far from it as two separate bfloat16 passes
                (plus 1e-3), all gradients of the model taken together as one vector.
    output      1e-5 of the largest value with float32 operands, 2e-2 for gradients with bfloat16 operands, which are
    layer       rounded to bfloat16 as in every other layer; values 1e-4, because logits are float32.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gpu_models
from gpu_models import Machine

from spotcli.core.forward.encoding import EncodedPair

EXACT = 2e-4
FACTOR = 3.0
FLOOR = 1e-3

SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {"granite": {"logits_scaling": 8.0, "attention_multiplier": 0.2}}
LONG = {**SIZES, "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "head_dim": 128}
"""For pairs of 1,500 to 4,000 tokens: the kernels work on blocks of 64 to 128."""


class Wrong(AssertionError):
    """A check found another number than it expects."""


def expect(condition: bool, message: str) -> None:
    """Raise ``Wrong`` unless the condition is true."""
    if not condition:
        raise Wrong(message)


@contextmanager
def exact_products() -> Iterator[None]:
    """Without TF32, which has 11 significant bits."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def short_pairs(seed: int = 0) -> list[EncodedPair]:
    """Pairs with a common beginning of the prompts, tails of one token, no shared answer, and y- as a prefix of y+."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def draw(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 500, (number,), generator=generator).tolist())

    start, pairs = draw(9), []
    for prompt, common, chosen, rejected in ((11, 17, 9, 13), (5, 0, 7, 3), (8, 70, 1, 1), (3, 4, 40, 1)):
        shared = draw(common)
        pairs.append(
            EncodedPair((*start, *draw(prompt)), (*shared, 501, *draw(chosen - 1)), (*shared, 502, *draw(rejected - 1)))
        )
    return [*pairs, EncodedPair((*start, 4, 5, 6), (7, 8, 9, 10), (7, 8))]


Numbers = tuple[Any, Any]
"""logp of every answer, and the gradient of a loss, with all weights as one vector; both float64 on the CPU."""


def numbers(model: Any, pairs: Sequence[EncodedPair], machine: Machine, mode: str, dtype: Any) -> Numbers:
    """Values and gradients of one way to compute pairs.

    Args:
        model: prepared by ``logps.install``.
        pairs: the pairs.
        machine: where.
        mode: ``shared``, ``plain``, or ``separate`` passes with the logits of transformers.
        dtype: of autocast; None without.
    """
    import torch
    import torch.nn.functional as F

    from spotcli.core.forward import shared_attention
    from spotcli.core.forward.packing import pack

    model.set_attn_implementation(shared_attention.NAME if mode == "shared" else "sdpa")
    model.zero_grad()
    with torch.autocast(machine.device, dtype) if dtype is not None else nullcontext():
        if mode == "separate":
            answers = [(pair.prompt_ids, pair.chosen_ids) for pair in pairs]
            answers += [(pair.prompt_ids, pair.rejected_ids) for pair in pairs]
            logps_B = torch.stack([_logp(model, *answer, machine) for answer in answers])
        else:
            batch = pack(pairs, share=mode == "shared").to(machine.device)
            logps_B = torch.cat(batch.sequence_logps(model(**batch.model_inputs())))
    half = len(pairs)
    loss = -F.logsigmoid(0.1 * logps_B[:half] + 8).mean() - F.logsigmoid(-0.1 * logps_B[half:] - 8).mean()
    torch.autograd.backward(loss)
    grads = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return logps_B.detach().double().cpu(), torch.cat(grads).double().cpu()


def _logp(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...], machine: Machine) -> Any:
    import torch

    ids = torch.tensor([prompt + answer], device=machine.device)
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    targets = torch.tensor(answer, device=machine.device)
    return logits.float().log_softmax(-1).gather(1, targets[:, None]).sum()


def distance(result: Numbers, truth: Numbers) -> tuple[float, float]:
    """How far values and gradients are from the truth, as shares of its length."""
    value, gradient = ((one - other).norm() / other.norm() for one, other in zip(result, truth, strict=True))
    return float(value), float(gradient)


def architecture(machine: Machine, kind: str, sizes: dict[str, Any], pairs: Sequence[EncodedPair]) -> dict[str, Any]:
    """Shared rows of one architecture against separate passes, in float32 and under bfloat16 autocast.

    Raises:
        Wrong: a number is outside its tolerance.
    """
    import torch

    from spotcli.core.forward import logps, rounded_operands, shared_attention

    config = gpu_models.save_config(machine.scratch / kind, kind, {**sizes, **SPECIAL.get(kind, {})})
    model = gpu_models.random_model(machine, config, "float32")
    shared_attention.register()
    shared_attention.pin_flash()
    logps.install(model)
    rounded_operands.install(model)
    with exact_products():
        truth = numbers(model, pairs, machine, "separate", None)
        exact = distance(numbers(model, pairs, machine, "shared", None), truth)
        separate = distance(numbers(model, pairs, machine, "separate", torch.bfloat16), truth)
        shared = distance(numbers(model, pairs, machine, "shared", torch.bfloat16), truth)
    expect(max(exact) <= EXACT, f"{kind}, float32: {max(exact):.1e} from separate passes, expected at most {EXACT}")
    for what, low, other in zip(("values", "gradients"), shared, separate, strict=True):
        limit = FACTOR * other + FLOOR
        expect(low <= limit, f"{kind}, bfloat16 {what}: {low:.1e} from float32, expected at most {limit:.1e}")
    varlen = shared_attention._varlen(torch.device(machine.device), torch.bfloat16) is not None
    return {
        "float32": max(exact), "bfloat16_shared": max(shared), "bfloat16_separate": max(separate),
        "attention": "varlen" if varlen else "sdpa",
    }  # fmt: skip


def output_layer(machine: Machine) -> dict[str, Any]:
    """The chunked output layer against full float32 logits: values and gradients.

    Raises:
        Wrong: a number is outside its tolerance.
    """
    import torch

    from spotcli.core.forward import logps

    rows, hidden, vocabulary = (300, 64, 1000) if machine.tiny else (3000, 4096, 151936)
    torch.manual_seed(0)
    with torch.device(machine.device):
        hidden_NH = torch.randn(rows, hidden)
        weight_VH = torch.randn(vocabulary, hidden) * hidden**-0.5
        targets_N = torch.randint(0, vocabulary, (rows,))
        upstream_N = torch.randn(rows)
    results: dict[str, Any] = {}
    for dtype, values, gradients in ((torch.float32, 1e-5, 1e-5), (torch.bfloat16, 1e-4, 2e-2)):
        machine.clear()
        states, weight = (tensor.detach().to(dtype, copy=True).requires_grad_() for tensor in (hidden_NH, weight_VH))
        with exact_products():
            result_N = logps.token_logps(states, weight, targets_N, chunk=logps.GPU_CHUNK)
            torch.autograd.backward((result_N * upstream_N).sum())
            peak = machine.peak_gib()
            exact_states, exact_weight = (
                tensor.detach().to(torch.float32, copy=True).requires_grad_() for tensor in (states, weight)
            )
            logits_NV = exact_states @ exact_weight.t()
            truth_N = logits_NV.log_softmax(-1).gather(1, targets_N[:, None])[:, 0]
            torch.autograd.backward((truth_N * upstream_N).sum())
        errors = [(result_N - truth_N).norm() / truth_N.norm()]
        for one, other in ((states, exact_states), (weight, exact_weight)):
            assert one.grad is not None
            assert other.grad is not None
            errors.append((one.grad.float() - other.grad).norm() / other.grad.norm())
        name = str(dtype).removeprefix("torch.")
        results |= {f"{name}_values": float(errors[0]), f"{name}_gradients": float(max(errors[1:]))}
        expect(float(errors[0]) <= values, f"{name}: values {float(errors[0]):.1e}, expected at most {values}")
        worst = float(max(errors[1:]))
        expect(worst <= gradients, f"{name}: gradients {worst:.1e}, expected at most {gradients}")
        results[f"{name}_peak_gib"] = peak
        del logits_NV, truth_N
    return results


def drift(machine: Machine) -> dict[str, Any]:
    """The drift between two models of 8B, as ``spot eval`` measures it: one model in memory at a time.

    The divergence at the first positions is compared with the one of whole float64 logits.

    Raises:
        Wrong: a number is outside its tolerance.
    """
    import torch

    from spotcli.core.drift import Head, hidden_kl

    answers, tokens, compared = (2, 20, 20) if machine.tiny else (8, 512, 64)
    torch.manual_seed(1)
    ids_NL = torch.randint(3, machine.shape("8B")["vocab_size"], (answers, tokens), device=machine.device)
    model, head, states_NLH = _last_states(machine, ids_NL, noise=0.0)
    # As on the disk of a run.
    base_weight_VH, base_NLH = head.weight_VH.cpu(), states_NLH.cpu()
    del model, head, states_NLH
    machine.clear()
    model, head, states_NLH = _last_states(machine, ids_NL, noise=0.2)
    with torch.inference_mode():
        base, base_NLH = Head(base_weight_VH.to(machine.device)), base_NLH.to(machine.device)
        machine.wait()
        started = time.perf_counter()
        kl_NL = torch.stack([
            hidden_kl((base, base_LH), (head, own_LH)) for base_LH, own_LH in zip(base_NLH, states_NLH, strict=True)
        ])  # fmt: skip
        machine.wait()
        seconds, peak = time.perf_counter() - started, machine.peak_gib()
        del model
        logs = [
            (states_LH[:compared].double() @ side.weight_VH.double().t()).log_softmax(-1)
            for side, states_LH in ((base, base_NLH[0]), (head, states_NLH[0]))
        ]
        truth_C = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
        error = float((kl_NL[0, :compared] - truth_C).norm() / truth_C.norm())
    expect(error <= 1e-3, f"drift: relative error {error:.1e}, expected at most 1e-3")
    return {"nats_per_token": float(kl_NL.mean()), "error": error, "seconds": seconds, "peak_gib": peak}


def _last_states(machine: Machine, ids_NL: Any, noise: float) -> tuple[Any, Any, Any]:
    """A random model whose weights have some noise, its head, and its last hidden states [N, L, H]."""
    import torch

    from spotcli.core.drift import head_of

    config = gpu_models.save_config(machine.scratch / "drift", "qwen3", machine.shape("8B"))
    model = gpu_models.random_model(machine, config, "bfloat16").eval()
    with torch.inference_mode():
        if noise:
            for weight in model.parameters():
                weight += noise * weight.std() * torch.randn_like(weight)
        machine.clear()  # the noise does not belong to the peak
        states = [model.base_model(ids_L[None], use_cache=False).last_hidden_state[0] for ids_L in ids_NL]
        return model, head_of(model), torch.stack(states)


# --- whole runs of the train stage ------------------------------------------------------------------------------------


def write_model(folder: Path) -> None:
    """Write a random Llama of two layers with a byte-level tokenizer and a chat template, as bfloat16 weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *letters])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    load: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    tokenizer = load(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}<s>"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder)  # type: ignore[no-untyped-call]


def whole_run(machine: Machine, name: str, train: dict[str, Any]) -> dict[str, Any]:
    """`spot train` on a tiny model: interrupted, resumed, saved, loaded again.

    The run compares its first loss with the one of policy = reference, and the saved file with the trained weights.

    Raises:
        Wrong: the saved model cannot be used, or a rerun does not resume.
    """
    from spotcli.errors import Unfinished
    from spotcli.policies import models
    from spotcli.recipe import Recipe
    from spotcli.stages.train import train as train_stage
    from spotcli.training.trainer import PairTrainer

    folder = machine.scratch / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model")
    rows = [
        {"id": str(n), "prompt": f"{n} + 8 = ", "chosen": f"{n} + 8 is {n + 8}", "rejected": f"{n} + 8 is {n + 9}"}
        for n in range(8)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"batch_size": 4, "num_train_epochs": 3, "warmup_steps": 0, "learning_rate": 1e-3, "save_steps": 1}
    recipe = Recipe.model_validate({"model": str(folder / "model"), "train": {**section, **train}})
    whole, stopped = PairTrainer.run_check, False

    def stop_once(self: PairTrainer) -> bool:
        nonlocal stopped
        if self.state.global_step == 3 and not stopped:
            stopped = True
            raise KeyboardInterrupt
        return whole(self)

    PairTrainer.run_check = stop_once  # type: ignore[method-assign]
    try:
        train_stage(recipe, folder=folder)
    except Unfinished:
        summary = train_stage(recipe, folder=folder)
    finally:
        PairTrainer.run_check = whole  # type: ignore[method-assign]
    expect(summary.resumed_from == 2, f"{name}: resumed from step {summary.resumed_from}, expected 2")
    loss = float((summary.final or {}).get("loss", math.nan))
    expect(math.isfinite(loss), f"{name}: the last loss is {loss}")
    loaded = models.load_model(str(folder / "checkpoint"))
    expect(loaded.device.type == machine.device, f"{name}: the saved model is on {loaded.device}")
    survival = summary.saved
    return {
        "first_loss": summary.first_loss, "last_loss": loss, "resumed_from": summary.resumed_from,
        "update_in_file": None if survival is None else survival.update,
    }  # fmt: skip
