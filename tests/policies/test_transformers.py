"""The transformers engine on a tiny real model."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from spotcli.errors import UserError
from spotcli.policies import Answer, Request, Sampling, TokenPrefix
from spotcli.policies.chat_template import render
from spotcli.policies.models import load_model, load_tokenizer, resolve
from spotcli.policies.transformers import TransformersPolicy, choose_tokens, shared_prefix
from spotcli.records import Message


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def all_answers(policy: TransformersPolicy, wanted: list[Request]) -> list[Answer]:
    groups = policy.answers(wanted, len(wanted), lambda request: False)
    answers: list[Answer] = []
    for item in chain.from_iterable(groups):
        assert isinstance(item, Answer)
        answers.append(item)
    return answers


def requests(texts: list[str]) -> list[Request]:
    return [Request((index,), ask(text), seed=index) for index, text in enumerate(texts)]


TEXTS = ["Say a word.", "Say b", "Something else entirely, and longer", "x", "Say a word!", "Say b?"]


def test_greedy_answers_equal_those_of_generate(tiny_model: Path) -> None:
    sampling = Sampling(12, temperature=0)
    policy = TransformersPolicy.load(str(tiny_model), sampling, batch_size=4, dtype="float32")
    model: Any = load_model(str(tiny_model), "float32")
    tokenizer = load_tokenizer(str(tiny_model))
    answers = {answer.request.key[0]: answer for answer in all_answers(policy, requests(TEXTS))}
    assert sorted(answers) == list(range(len(TEXTS)))
    for index, text in enumerate(TEXTS):
        ids = torch.tensor([render(tokenizer, ask(text))])
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert answers[index].token_ids == plain[0, ids.shape[1] :].tolist()


def test_a_prefix_is_continued_as_the_whole_answer_was(tiny_model: Path) -> None:
    policy = TransformersPolicy.load(str(tiny_model), Sampling(12, temperature=0), batch_size=4, dtype="float32")
    whole = {answer.request.key[0]: answer.token_ids or [] for answer in all_answers(policy, requests(TEXTS))}
    cuts = [
        Request(
            (index, kept), ask(text), 0, prefix=TokenPrefix((*policy.prompter.ids(ask(text)), *whole[index][:kept]), "")
        )
        for index, text in enumerate(TEXTS)
        for kept in (0, 5)
    ]
    for answer in all_answers(policy, cuts):
        index, kept = answer.request.key
        assert (answer.token_ids or [])[: 12 - kept] == whole[index][kept:]


def test_an_answer_depends_on_its_seed_and_not_on_its_batch(tiny_model: Path) -> None:
    alone = TransformersPolicy.load(
        str(tiny_model), Sampling(12, temperature=1.0, top_p=1.0), batch_size=1, dtype="float32"
    )
    together = TransformersPolicy.load(
        str(tiny_model), Sampling(12, temperature=1.0, top_p=1.0), batch_size=6, dtype="float32"
    )
    wanted = requests(TEXTS)
    single = {answer.request.key: answer.token_ids for answer in all_answers(alone, wanted)}
    batched = {answer.request.key: answer.token_ids for answer in all_answers(together, wanted)}
    assert single == batched
    other = [Request(request.key, request.messages, request.seed + 100) for request in wanted]
    assert single != {answer.request.key: answer.token_ids for answer in all_answers(alone, other)}


def test_the_next_request_takes_a_free_slot_and_gets_the_same_answer_as_alone(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(60, temperature=1.0, top_p=1.0)
    wanted = requests([f"{'word ' * (number % 5)}{number}" for number in range(24)])
    alone = TransformersPolicy.load(str(tiny_model), sampling, batch_size=1, dtype="float32")
    filled = TransformersPolicy.load(str(tiny_model), sampling, batch_size=6, dtype="float32")
    before = {answer.request.key: answer.token_ids for answer in all_answers(alone, wanted)}
    # A random model ends its turn with a probability of about 1/258 per token, so more end tokens make lengths uneven.
    for policy in (alone, filled):
        policy.prompter.ends = set(range(0, 258, 12))
    single = {answer.request.key: answer.token_ids for answer in all_answers(alone, wanted)}
    widths: list[int] = []
    forward = filled.model.forward

    def recording(**arguments: Any) -> Any:
        widths.append(len(arguments["input_ids"]))
        return forward(**arguments)

    monkeypatch.setattr(filled.model, "forward", recording)
    batched = {answer.request.key: answer.token_ids for answer in all_answers(filled, wanted)}
    assert single == batched != before
    lengths = [len(ids or ()) for ids in single.values()]
    assert len(set(lengths)) > 8
    # Most steps have six full slots, and the number of steps is less than twice that of slots that are always full.
    steps = sum(width == 6 for width in widths)
    assert steps > len(widths) / 2
    assert len(widths) < sum(lengths) / 6 * 2


def test_the_finish_reason_of_a_truncated_answer_is_length(tiny_model: Path) -> None:
    policy = TransformersPolicy.load(str(tiny_model), Sampling(400, temperature=1.0, top_p=1.0), batch_size=6)
    answers = all_answers(policy, requests(TEXTS))
    for answer in answers:
        assert answer.token_ids is not None
        assert (answer.finish_reason == "stop") == (answer.token_ids[-1] == policy.prompter.tokenizer.eos_token_id)
        assert answer.finish_reason == "stop" or len(answer.token_ids) == 400
    # A random model ends its turn with a probability of about 1/258 per token: in 400 tokens most answers end.
    assert Counter(answer.finish_reason for answer in answers)["stop"] >= 1


def test_logits_predict_the_greedy_answer(tiny_model: Path) -> None:
    policy = TransformersPolicy.load(str(tiny_model), Sampling(8, temperature=0), batch_size=6, dtype="float32")
    for answer in all_answers(policy, requests(TEXTS)):
        assert policy.logits(answer).argmax(-1).tolist() == answer.token_ids


def test_the_shared_prefix_excludes_the_last_token_of_each_prompt() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2  # the last token is not part of it
    assert shared_prefix([[1, 2], [1, 2, 3]]) == 1
    assert shared_prefix([[1], [2]]) == 0


@pytest.mark.parametrize(
    ("uniform", "token"),
    # p = 0.5, 0.25, 0.125, 0.125. top_p 0.7 keeps 0.5 and 0.25 (the mass before the third is 0.75): 2/3 and 1/3.
    [(0.0, 2), (0.6, 2), (0.66, 2), (0.67, 0), (0.999, 0)],
)
def test_nucleus_sampling_inverts_the_kept_mass(uniform: float, token: int) -> None:
    logits = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).log()
    tokens = choose_tokens(logits, torch.tensor([uniform]), Sampling(1, temperature=1.0, top_p=0.7))
    assert tokens.tolist() == [token]


def test_top_k_renormalises_before_the_nucleus() -> None:
    # top-k 2 leaves 0.5 and 0.25, renormalised 2/3 and 1/3; top_p 0.6 then keeps the first alone.
    logits = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).log()
    sampling = Sampling(1, temperature=1.0, top_p=0.6, top_k=2)
    assert {int(choose_tokens(logits, torch.tensor([u]), sampling)) for u in (0.0, 0.5, 0.99)} == {2}


def test_a_nucleus_wider_than_the_candidates_falls_back_to_the_whole_vocabulary() -> None:
    # 1,000 equally likely tokens: top_p 0.9 keeps 900, far more than the 128 candidates.
    logits = torch.zeros(1, 1000)
    uniforms = torch.linspace(0, 0.9999, 300)
    sampling = Sampling(1, temperature=1.0, top_p=0.9)
    drawn = {int(choose_tokens(logits, uniform[None], sampling)) for uniform in uniforms}
    assert len(drawn) == 300


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.95, 0), (1.0, 300), (0.8, 300)])
def test_a_draw_is_the_same_alone_and_beside_others(top_p: float, top_k: int) -> None:
    """Some rows are decided by the most likely tokens, others need the sorted vocabulary, as here the wide ones."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([0.1, 1.0, 3.0, 8.0]).repeat(8)[:, None]
    logits = torch.randn(32, 1000, generator=generator) * scales
    uniforms = torch.rand(32, generator=generator)
    sampling = Sampling(1, temperature=1.0, top_p=top_p, top_k=top_k)

    ordered = logits.sort(descending=True)
    values = ordered.values[:, : top_k or 1000].double().softmax(-1)
    kept = values * ((values.cumsum(-1) - values) < top_p)
    drawn = (kept.cumsum(-1) <= uniforms[:, None] * kept.sum(-1, keepdim=True)).sum(-1, keepdim=True)
    expected = ordered.indices.gather(-1, drawn).squeeze(-1).tolist()

    assert choose_tokens(logits, uniforms, sampling).tolist() == expected
    assert [int(choose_tokens(logits[[row]], uniforms[[row]], sampling)) for row in range(32)] == expected


def test_sampled_frequencies_follow_the_temperature() -> None:
    # Temperature 2 on p = 0.8, 0.2 gives sqrt: 0.894 and 0.447, renormalised 2/3 and 1/3.
    logits = torch.tensor([[0.8, 0.2]]).log().expand(3000, 2)
    uniforms = torch.linspace(0, 1 - 1e-6, 3000)
    tokens = choose_tokens(logits, uniforms, Sampling(1, temperature=2.0, top_p=1.0))
    assert int((tokens == 0).sum()) == pytest.approx(2000, abs=2)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "builtin:gpt-5"])
def test_an_unknown_model_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(name)
    assert caught.value.exit_code == 2
    assert caught.value.cure


def test_a_folder_without_a_model_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        resolve(str(tmp_path))
