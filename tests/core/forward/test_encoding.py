"""Emitted ids, corrections that share them, and small versions of the chat templates of Qwen3 and Llama."""

from __future__ import annotations

from typing import Any

import pytest

from spotcli.core.forward.encoding import FOREIGN, IDENTICAL, Encoded, EncodedPair, Encoder
from spotcli.errors import UserError
from spotcli.policies import chat_template
from spotcli.records import Pair

# Like Qwen3: an empty think block turns thinking off, and the last answer of a chat gets one too.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Like Llama 3: the template adds the BOS token and trims the messages.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# The prompt opens a think block that the template removes from a finished chat.
THINK = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|><think>\n{% endif %}"
)
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
]  # fmt: skip


def tokenizer(template: str = QWEN3, *, bos: str = "<|im_start|>", eos: str = "<|im_end|>") -> Any:
    """A tokenizer of bytes with the merges 1+2, 12+3 and a+b."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters, "12", "123", "ab"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2"), ("12", "3"), ("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    made = fast(tokenizer_object=inner, bos_token=bos, eos_token=eos, additional_special_tokens=SPECIAL)
    # The think tokens of Qwen3 are single tokens and not special.
    made.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    made.chat_template = template
    return made


def encoded(made: Any, row: dict[str, Any], *, stop_ids: tuple[int, ...] = (), **kwargs: Any) -> Encoded:
    def render(pair: Pair) -> list[int]:
        return chat_template.render(made, pair.messages, kwargs)

    encoder = Encoder(
        tokenizer=made,
        render=render,
        follows=lambda pair, answer: chat_template.follows(made, pair.messages, answer, kwargs),
        end_ids=[made.eos_token_id],
        stop_ids=stop_ids,
        max_length=1000,
    )
    return encoder.encode([Pair.model_validate({"prompt": "?", **row})])


def encoded_pair(made: Any, row: dict[str, Any], **kwargs: Any) -> EncodedPair:
    result = encoded(made, row, **kwargs)
    assert len(result.pairs) == result.read == 1, result.dropped
    assert result.emitted == ("response_ids" in row)
    return result.pairs[0]


def ids(made: Any, *tokens: str) -> list[int]:
    """Return the ids of tokens as the vocabulary spells them; a space is Ġ."""
    token_ids = made.convert_tokens_to_ids(list(tokens))
    assert None not in token_ids
    return list(token_ids)


END = "<|im_end|>"


def test_a_pair_has_the_emitted_ids_and_the_correction_shares_them() -> None:
    made = tokenizer()
    # The policy emitted 123 as three tokens; its tokenizer has one token for it. y+ differs in the last letter.
    emitted = ids(made, "1", "2", "3", "ab", "x", END)
    pair = encoded_pair(made, {"rejected": "123abx", "chosen": "123aby", "response_ids": emitted})
    assert list(pair.rejected_ids) == emitted
    assert list(pair.chosen_ids) == ids(made, "1", "2", "3", "ab", "y", END)
    assert pair.shared == 4
    # Without response_ids: the tokens of the tokenizer.
    plain = encoded_pair(made, {"rejected": "123abx", "chosen": "123aby"})
    assert list(plain.rejected_ids) == ids(made, "123", "ab", "x", END)


def test_a_correction_leaves_the_emitted_ids_at_a_token_boundary_of_its_own() -> None:
    made = tokenizer()
    # y- is emitted as a b 12 x, y+ is ab123. Emitted tokens spell "ab12", but 123 is one token of y+, so y+ leaves the
    # emitted ids after ab.
    emitted = ids(made, "a", "b", "12", "x", END)
    pair = encoded_pair(made, {"rejected": "ab12x", "chosen": "ab123", "response_ids": emitted})
    assert list(pair.chosen_ids) == ids(made, "a", "b", "123", END)


def test_a_correction_that_differs_at_once_has_its_own_tokens() -> None:
    made = tokenizer()
    emitted = ids(made, "1", "2", "x", END)
    pair = encoded_pair(made, {"rejected": "12x", "chosen": "ab12", "response_ids": emitted})
    assert list(pair.chosen_ids) == ids(made, "ab", "12", END)
    # 12 is emitted as 1 2 and is the beginning of one token of y+.
    pair = encoded_pair(made, {"rejected": "12x", "chosen": "123", "response_ids": emitted})
    assert list(pair.chosen_ids) == ids(made, "123", END)


def test_a_character_of_several_tokens_is_not_split() -> None:
    made = tokenizer()
    # é and è share their first byte. The emitted ids differ from the tokenizer's because of a b.
    emitted = [*ids(made, "a", "b"), *made("é")["input_ids"], *ids(made, END)]
    pair = encoded_pair(made, {"rejected": "abé", "chosen": "abè", "response_ids": emitted})
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
    pair = encoded_pair(made, {"rejected": text, "chosen": chosen, "response_ids": [*tokens, *ids(made, END)]})
    assert made.decode(pair.chosen_ids, skip_special_tokens=True) == chosen
    # Each letter is emitted separately, so everything before the edit is shared, except the token that it falls into.
    before = len([token for letter in text[:place] for token in made(letter)["input_ids"]])
    assert before - 3 <= pair.shared


def test_both_answers_end_with_the_token_that_the_policy_emitted() -> None:
    made = tokenizer()
    eot = ids(made, "<|eot_id|>")
    row = {"rejected": "ab", "chosen": "12", "response_ids": [*ids(made, "ab"), *eot]}
    pair = encoded_pair(made, row, stop_ids=(eot[0],))
    assert (list(pair.chosen_ids), list(pair.rejected_ids)) == (ids(made, "12", "<|eot_id|>"), row["response_ids"])
    # A truncated answer has no end token; its correction has the end token of the tokenizer.
    truncated = encoded_pair(
        made, {"rejected": "ab", "chosen": "12", "finish_reason": "length", "response_ids": ids(made, "ab")}
    )
    assert (list(truncated.chosen_ids), list(truncated.rejected_ids)) == (ids(made, "12", END), ids(made, "ab"))


def test_a_right_answer_without_a_wrong_one_has_its_emitted_ids() -> None:
    made = tokenizer()
    pair = encoded_pair(made, {"chosen": "12", "response_ids": ids(made, "1", "2", END)})
    assert (list(pair.chosen_ids), pair.rejected_ids) == (ids(made, "1", "2", END), ())


@pytest.mark.parametrize("wrong", [[6, 7], ["12"], [10**9], [-1], [True], [], "12", 5])
def test_rows_with_invalid_response_ids_are_dropped(wrong: Any) -> None:
    result = encoded(tokenizer(), {"rejected": "ab", "chosen": "12", "response_ids": wrong})
    assert (result.pairs, result.dropped) == ([], {FOREIGN: 1})


def test_a_row_of_an_api_without_ids() -> None:
    result = encoded(tokenizer(), {"rejected": "ab", "chosen": "12", "response_ids": None})
    assert (len(result.pairs), result.emitted) == (1, 0)


def test_identical_answers_are_dropped() -> None:
    made = tokenizer()
    result = encoded(made, {"rejected": "12", "chosen": "12", "response_ids": ids(made, "1", "2", END)})
    assert result.dropped == {IDENTICAL: 1}


def test_qwen3_without_thinking_ends_its_prompt_in_an_empty_think_block() -> None:
    made = tokenizer()
    pair = encoded_pair(made, {"rejected": "ab", "chosen": "12"}, enable_thinking=False)
    assert made.decode(pair.prompt_ids) == (
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert pair.prompt_ids.count(made.convert_tokens_to_ids("<think>")) == 1
    # With thinking, the model emits the block.
    assert made.decode(encoded_pair(made, {"rejected": "ab", "chosen": "12"}).prompt_ids).endswith("assistant\n")


def test_llama_has_one_bos_and_its_own_end_token() -> None:
    made = tokenizer(LLAMA, bos="<|begin_of_text|>", eos="<|eot_id|>")
    pair = encoded_pair(made, {"prompt": " ? ", "rejected": "ab", "chosen": "12"})
    assert made.decode(pair.prompt_ids) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert list(pair.chosen_ids) == ids(made, "12", "<|eot_id|>")


def test_a_prompt_that_changes_with_its_answer_is_an_error() -> None:
    made = tokenizer(THINK)
    with pytest.raises(UserError, match="not a prefix of prompt and response") as caught:
        encoded(made, {"id": "p7", "rejected": "ab", "chosen": "12"})
    assert (caught.value.where, "keep_tokens" in str(caught.value.cure)) == ("pair p7", True)
    # With the emitted ids the prompt is known.
    pair = encoded_pair(made, {"rejected": "ab", "chosen": "12", "response_ids": ids(made, "ab", END)})
    assert made.decode(pair.prompt_ids).endswith("<|im_start|><think>\n")


def test_edited_tokens_are_missing_from_the_other_answer() -> None:
    # y- 1 2 3 4 9, y+ 1 5 3 4 6 9: 1, 3, 4 and 9 are kept.
    pair = EncodedPair((0,), (1, 5, 3, 4, 6, 9), (1, 2, 3, 4, 9))
    assert pair.edited() == ([False, True, False, False, True, False], [False, True, False, False, False])
