"""Tiny random models with byte-level tokenizers, for architectures and chat templates of any kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|im_start|>", "<|im_end|>")

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip


def tokenizer(specials: Sequence[str], eos: str, template: str | None, added: Sequence[str] = ()) -> Any:
    """A tokenizer of bytes and special tokens.

    Args:
        specials: the special tokens, with the lowest ids; the first one is also the BOS token.
        eos: the EOS and padding token.
        template: the chat template.
        added: tokens that only the tokenizer has.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*specials, *letters]))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    load: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    others = [token for token in specials if token not in (specials[0], eos)]
    made = load(
        tokenizer_object=inner,
        bos_token=specials[0],
        eos_token=eos,
        pad_token=eos,
        additional_special_tokens=others,
    )
    made.chat_template = template
    made.add_tokens([*added])
    return made


def save_configs(folder: Path, kind: str, made: Any, stops: Sequence[str] = (), **sizes: Any) -> Path:
    """Save a configuration and a tokenizer without weights, which reading the data does not need.

    Args:
        folder: the folder of the model.
        kind: its architecture.
        made: its tokenizer.
        stops: the tokens in generation_config.json that stop generation; without them, there is no such file.
        sizes: changes of the configuration.
    """
    config(kind, made, **sizes).save_pretrained(folder)
    made.save_pretrained(folder)
    if stops:
        ids = {"eos_token_id": made.convert_tokens_to_ids([*stops])}
        (folder / "generation_config.json").write_text(json.dumps(ids))
    return folder


def config(kind: str, made: Any, **sizes: Any) -> Any:
    from transformers import AutoConfig

    ids = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    return AutoConfig.for_model(kind, **{**SIZES, "vocab_size": made.vocab_size, **ids, **sizes})


def save_model(
    folder: Path, kind: str = "llama", made: Any = None, stops: Sequence[str] = (), dtype: str = "float32", **sizes: Any
) -> Path:
    """Save a random model with its tokenizer; the arguments are those of ``save_configs``, and the number format."""
    import torch
    from transformers import AutoModelForCausalLM

    made = tokenizer(SPECIALS, "<|im_end|>", CHATML) if made is None else made
    torch.manual_seed(0)
    build: Any = AutoModelForCausalLM.from_config
    model = build(config(kind, made, **sizes)).to(getattr(torch, dtype))
    if stops:
        model.generation_config.eos_token_id = made.convert_tokens_to_ids([*stops])
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
