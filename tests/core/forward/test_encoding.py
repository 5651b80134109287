"""Emitted ids, corrections that share them, and the templates of Qwen3 and Llama in miniature."""

from __future__ import annotations

from typing import Any

import pytest

from spotcli.core.forward.encoding import FOREIGN, IDENTICAL, Encoded, EncodedPair, Encoder
from spotcli.errors import UserError
from spotcli.policies import chat_template
from spotcli.records import Message, Pair

# As Qwen3's: thinking can be turned off by an empty think block, which the last answer of a chat gets too.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As Llama 3's: the template writes the BOS, and trims what is said.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# The prompt opens a think block that the template takes out of a finished chat.
OPENS = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|><think>\n{% endif %}"
)
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
]  # fmt: skip


def tokenizer(template: str = QWEN3, *, bos: str = "<|im_start|>", eos: str = "<|im_end|>") -> Any:
    """Bytes, and the merges 1+2, 12+3, a+b."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*SPECIAL, *letters, "12", "123", "ab"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2"), ("12", "3"), ("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token=eos, additional_special_tokens=SPECIAL
    )
    # Qwen3's think tokens are single tokens, and not special.
    made.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    made.chat_template = template
    return made


def encoded(made: Any, row: dict[str, Any], *, stop_ids: tuple[int, ...] = (), **kwargs: Any) -> Encoded:
    def render(messages: list[Message]) -> list[int]:
        return chat_template.render(made, messages, kwargs)

    encoder = Encoder(
        tokenizer=made,
        render=render,
        follows=lambda messages, answer: chat_template.follows(made, messages, answer, kwargs),
        end_ids=[made.eos_token_id],
        stop_ids=stop_ids,
        max_length=1000,
    )
    return encoder.encode([Pair.model_validate({"prompt": "?", **row})])


def one(made: Any, row: dict[str, Any], **more: Any) -> EncodedPair:
    found = encoded(made, row, **more)
    assert len(found.pairs) == found.read == 1, found.dropped
    assert found.emitted == ("response_ids" in row)
    return found.pairs[0]


def ids(made: Any, *tokens: str) -> list[int]:
    """Ids of tokens as the vocabulary spells them; a blank is Ġ."""
    found = made.convert_tokens_to_ids(list(tokens))
    assert None not in found
    return list(found)


END = "<|im_end|>"


def test_the_emitted_ids_are_trained_on_and_the_correction_shares_them() -> None:
    made = tokenizer()
    # The policy spelled 123 as 1 23; its tokenizer would have made one token of it. y+ departs at the last letter.
    emitted = ids(made, "1", "2", "3", "ab", "x", END)
    pair = one(made, {"rejected": "123abx", "chosen": "123aby", "response_ids": emitted})
    assert list(pair.rejected_ids) == emitted
    assert list(pair.chosen_ids) == ids(made, "1", "2", "3", "ab", "y", END)
    assert pair.shared == 4
    # Without the ids, the tokenizer's own.
    plain = one(made, {"rejected": "123abx", "chosen": "123aby"})
    assert list(plain.rejected_ids) == ids(made, "123", "ab", "x", END)


def test_a_correction_departs_where_its_own_tokens_have_an_end() -> None:
    made = tokenizer()
    # y- is a b 1 2 x, with a and b apart. y+ is ab123: "ab12" is spelled by emitted tokens, but 123 is one token of
    # y+, and its end before that is behind ab.
    emitted = ids(made, "a", "b", "12", "x", END)
    pair = one(made, {"rejected": "ab12x", "chosen": "ab123", "response_ids": emitted})
    assert list(pair.chosen_ids) == ids(made, "a", "b", "123", END)


def test_a_correction_that_departs_at_once_is_its_own_tokens() -> None:
    made = tokenizer()
    emitted = ids(made, "1", "2", "x", END)
    pair = one(made, {"rejected": "12x", "chosen": "ab12", "response_ids": emitted})
    assert list(pair.chosen_ids) == ids(made, "ab", "12", END)
    # 12 is emitted as 1 2, and is the beginning of one token of y+.
    pair = one(made, {"rejected": "12x", "chosen": "123", "response_ids": emitted})
    assert list(pair.chosen_ids) == ids(made, "123", END)


def test_a_character_of_several_tokens_is_not_cut() -> None:
    made = tokenizer()
    # é and è share their first byte. The emitted ids are not the tokenizer's own because of a b.
    emitted = [*ids(made, "a", "b"), *made("é")["input_ids"], *ids(made, END)]
    pair = one(made, {"rejected": "abé", "chosen": "abè", "response_ids": emitted})
    assert list(pair.chosen_ids) == [*ids(made, "a", "b"), *made("è")["input_ids"], *ids(made, END)]
    assert made.decode(list(pair.chosen_ids)) == "abè<|im_end|>"


@pytest.mark.parametrize("seed", range(20))
def test_a_correction_always_spells_its_text(seed: int) -> None:
    import random

    r, made = random.Random(seed), tokenizer()
    text = "".join(r.choice(["1", "12", "123", "ab", "a", "é", "🙂", " "]) for _ in range(30))
    tokens = [token for letter in text for token in made(letter)["input_ids"]]
    place = r.randrange(len(text))
    chosen = text[:place] + r.choice(["3", "b", "é", "🙃"]) + text[place + r.randrange(2) :]
    if chosen == text:
        return
    pair = one(made, {"rejected": text, "chosen": chosen, "response_ids": [*tokens, *ids(made, END)]})
    assert made.decode(pair.chosen_ids, skip_special_tokens=True) == chosen
    # All letters are emitted apart: but for the token that the edit falls into, what is before the edit is shared.
    before = len([token for letter in text[:place] for token in made(letter)["input_ids"]])
    assert before - 3 <= pair.shared


def test_both_answers_end_as_the_policy_did() -> None:
    made = tokenizer()
    eot = ids(made, "<|eot_id|>")
    row = {"rejected": "ab", "chosen": "12", "response_ids": [*ids(made, "ab"), *eot]}
    pair = one(made, row, stop_ids=(eot[0],))
    assert (list(pair.chosen_ids), list(pair.rejected_ids)) == (ids(made, "12", "<|eot_id|>"), row["response_ids"])
    # An answer that was cut has no end; its correction has the tokenizer's.
    cut = one(made, {"rejected": "ab", "chosen": "12", "finish_reason": "length", "response_ids": ids(made, "ab")})
    assert (list(cut.chosen_ids), list(cut.rejected_ids)) == (ids(made, "12", END), ids(made, "ab"))


def test_a_right_answer_without_a_wrong_one_is_trained_on_as_emitted() -> None:
    made = tokenizer()
    pair = one(made, {"chosen": "12", "response_ids": ids(made, "1", "2", END)})
    assert (list(pair.chosen_ids), pair.rejected_ids) == (ids(made, "1", "2", END), ())


@pytest.mark.parametrize("wrong", [[6, 7], ["12"], [10**9], [-1], [True], [], "12", 5])
def test_ids_of_something_else_are_counted(wrong: Any) -> None:
    found = encoded(tokenizer(), {"rejected": "ab", "chosen": "12", "response_ids": wrong})
    assert (found.pairs, found.dropped) == ([], {FOREIGN: 1})


def test_an_api_that_tells_no_ids() -> None:
    found = encoded(tokenizer(), {"rejected": "ab", "chosen": "12", "response_ids": None})
    assert (len(found.pairs), found.emitted) == (1, 0)


def test_answers_with_the_same_text_are_no_pair() -> None:
    made = tokenizer()
    found = encoded(made, {"rejected": "12", "chosen": "12", "response_ids": ids(made, "1", "2", END)})
    assert found.dropped == {IDENTICAL: 1}


def test_qwen3_without_thinking_ends_its_prompt_in_an_empty_think_block() -> None:
    made = tokenizer()
    pair = one(made, {"rejected": "ab", "chosen": "12"}, enable_thinking=False)
    assert made.decode(pair.prompt_ids) == (
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert pair.prompt_ids.count(made.convert_tokens_to_ids("<think>")) == 1
    # With thinking, the model writes the block itself.
    assert made.decode(one(made, {"rejected": "ab", "chosen": "12"}).prompt_ids).endswith("assistant\n")


def test_llama_has_one_bos_and_ends_with_its_own_token() -> None:
    made = tokenizer(LLAMA, bos="<|begin_of_text|>", eos="<|eot_id|>")
    pair = one(made, {"prompt": " ? ", "rejected": "ab", "chosen": "12"})
    assert made.decode(pair.prompt_ids) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert list(pair.chosen_ids) == ids(made, "12", "<|eot_id|>")


def test_a_prompt_that_the_answer_does_not_follow_stops() -> None:
    made = tokenizer(OPENS)
    with pytest.raises(UserError, match="not a prefix of prompt and response") as caught:
        encoded(made, {"id": "p7", "rejected": "ab", "chosen": "12"})
    assert (caught.value.where, "keep_tokens" in str(caught.value.cure)) == ("pair p7", True)
    # The emitted ids say what followed.
    pair = one(made, {"rejected": "ab", "chosen": "12", "response_ids": ids(made, "ab", END)})
    assert made.decode(pair.prompt_ids).endswith("<|im_start|><think>\n")


def test_edited_tokens_are_those_that_the_other_answer_lacks() -> None:
    # y- 1 2 3 4 9, y+ 1 5 3 4 6 9: 1, 3, 4 and 9 are kept.
    pair = EncodedPair((0,), (1, 5, 3, 4, 6, 9), (1, 2, 3, 4, 9))
    assert pair.edited() == ([False, True, False, False, True, False], [False, True, False, False, False])
