"""The transformers policy on a tiny real model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from spotcli.errors import UserError
from spotcli.policies import Answer, Request, Sampling
from spotcli.policies.chat_template import render
from spotcli.policies.models import load_model, load_tokenizer, resolve
from spotcli.policies.transformers import TransformersPolicy, choose, shared_prefix
from spotcli.records import Message


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def all_answers(policy: TransformersPolicy, wanted: list[Request]) -> list[Answer]:
    found = [item for group in policy.answers(wanted, len(wanted), lambda request: False) for item in group]
    assert all(isinstance(item, Answer) for item in found)
    return found  # type: ignore[return-value]


def requests(texts: list[str]) -> list[Request]:
    return [Request((at,), ask(text), seed=at) for at, text in enumerate(texts)]


TEXTS = ["Say a word.", "Say b", "Something else entirely, and longer", "x", "Say a word!", "Say b?"]


def test_greedy_answers_equal_the_librarys_own_generation(tiny_model: Path) -> None:
    sampling = Sampling(12, temperature=0)
    policy = TransformersPolicy(str(tiny_model), sampling, batch_size=4, dtype="float32")
    model, tokenizer = load_model(str(tiny_model), "float32"), load_tokenizer(str(tiny_model))
    answers = {answer.request.key[0]: answer for answer in all_answers(policy, requests(TEXTS))}
    assert sorted(answers) == list(range(len(TEXTS)))
    for at, text in enumerate(TEXTS):
        ids = torch.tensor([render(tokenizer, ask(text))])
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert answers[at].token_ids == plain[0, ids.shape[1] :].tolist()


def test_an_answer_depends_on_its_seed_and_not_on_its_batch(tiny_model: Path) -> None:
    alone = TransformersPolicy(str(tiny_model), Sampling(12, temperature=1.0, top_p=1.0), batch_size=1, dtype="float32")
    together = TransformersPolicy(
        str(tiny_model), Sampling(12, temperature=1.0, top_p=1.0), batch_size=6, dtype="float32"
    )
    wanted = requests(TEXTS)
    one = {a.request.key: a.token_ids for a in all_answers(alone, wanted)}
    six = {a.request.key: a.token_ids for a in all_answers(together, wanted)}
    assert one == six
    other = [Request(request.key, request.messages, request.seed + 100) for request in wanted]
    assert one != {a.request.key: a.token_ids for a in all_answers(alone, other)}


def test_whoever_is_next_takes_a_free_slot_and_answers_as_if_alone(tiny_model: Path) -> None:
    sampling = Sampling(60, temperature=1.0, top_p=1.0)
    wanted = requests([f"{'word ' * (at % 5)}{at}" for at in range(24)])
    alone = TransformersPolicy(str(tiny_model), sampling, batch_size=1, dtype="float32")
    filled = TransformersPolicy(str(tiny_model), sampling, batch_size=6, dtype="float32")
    before = {a.request.key: a.token_ids for a in all_answers(alone, wanted)}
    # A random model ends its turn with a probability of about 1/258 a token, so lengths are made uneven here.
    for policy in (alone, filled):
        policy.prompter.ends = set(range(0, 258, 12))
    one = {a.request.key: a.token_ids for a in all_answers(alone, wanted)}
    widths = []
    forward = filled.model.forward
    # The ignore: mypy takes no assignment to a method, and looking on from outside is all that this one does.
    filled.model.forward = lambda *a, **k: (widths.append(len(k["input_ids"])), forward(*a, **k))[1]  # type: ignore[method-assign]
    six = {a.request.key: a.token_ids for a in all_answers(filled, wanted)}
    assert one == six != before
    assert len({len(ids) for ids in one.values()}) > 8
    # One prefix; four prompts of six at first, then those that join; and few steps beyond what full slots would take.
    steps = sum(width == 6 for width in widths)
    assert steps > len(widths) / 2
    assert len(widths) < sum(map(len, one.values())) / 6 * 2


def test_the_finish_reason_tells_a_cut_answer_from_an_ended_one(tiny_model: Path) -> None:
    policy = TransformersPolicy(str(tiny_model), Sampling(400, temperature=1.0, top_p=1.0), batch_size=6)
    answers = all_answers(policy, requests(TEXTS))
    for answer in answers:
        assert (answer.finish_reason == "stop") == (answer.token_ids[-1] == policy.prompter.tokenizer.eos_token_id)
        assert answer.finish_reason == "stop" or len(answer.token_ids) == 400
    # A random model ends its turn with probability of about 1/258 a token: in 400 tokens most answers end.
    assert Counter(answer.finish_reason for answer in answers)["stop"] >= 1


def test_logits_are_those_that_predicted_the_answer(tiny_model: Path) -> None:
    policy = TransformersPolicy(str(tiny_model), Sampling(8, temperature=0), batch_size=6, dtype="float32")
    for answer in all_answers(policy, requests(TEXTS)):
        assert policy.logits(answer).argmax(-1).tolist() == answer.token_ids


def test_the_shared_prefix_leaves_every_prompt_a_token() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2  # the last token is kept back
    assert shared_prefix([[1, 2], [1, 2, 3]]) == 1
    assert shared_prefix([[1], [2]]) == 0


@pytest.mark.parametrize(
    ("uniform", "token"),
    # p = 0.5, 0.25, 0.125, 0.125. top_p 0.7 keeps 0.5 and 0.25 (the mass before the third is 0.75): 2/3 and 1/3.
    [(0.0, 2), (0.6, 2), (0.66, 2), (0.67, 0), (0.999, 0)],
)
def test_nucleus_sampling_inverts_the_kept_mass(uniform: float, token: int) -> None:
    logits = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).log()
    chosen = choose(logits, torch.tensor([uniform]), Sampling(1, temperature=1.0, top_p=0.7))
    assert chosen.tolist() == [token]


def test_top_k_renormalises_before_the_nucleus() -> None:
    # top-k 2 leaves 0.5 and 0.25, renormalised 2/3 and 1/3; top_p 0.6 then keeps the first alone.
    logits = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).log()
    sampling = Sampling(1, temperature=1.0, top_p=0.6, top_k=2)
    assert {int(choose(logits, torch.tensor([u]), sampling)) for u in (0.0, 0.5, 0.99)} == {2}


def test_a_nucleus_wider_than_the_candidates_falls_back_to_the_whole_vocabulary() -> None:
    # 1,000 equally likely tokens: top_p 0.9 keeps 900, far more than the first look's 128.
    logits = torch.zeros(1, 1000)
    uniforms = torch.linspace(0, 0.9999, 300)
    drawn = {int(choose(logits, u[None], Sampling(1, temperature=1.0, top_p=0.9))) for u in uniforms}
    assert len(drawn) == 300


def test_sampled_frequencies_follow_the_temperature() -> None:
    # Temperature 2 on p = 0.8, 0.2 gives sqrt: 0.894 and 0.447, renormalised 2/3 and 1/3.
    logits = torch.tensor([[0.8, 0.2]]).log().expand(3000, 2)
    uniforms = torch.linspace(0, 1 - 1e-6, 3000)
    chosen = choose(logits, uniforms, Sampling(1, temperature=2.0, top_p=1.0))
    assert int((chosen == 0).sum()) == pytest.approx(2000, abs=2)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "builtin:gpt-5"])
def test_a_model_that_is_not_there_is_the_users_error(name: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(name)
    assert caught.value.exit_code == 2
    assert caught.value.cure


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(tmp_path))
