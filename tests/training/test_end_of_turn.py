"""Which token ends an answer: what the chat template writes after it, for every architecture that is called supported.

The table in docs/training.md is the result of this test: ``SPOT_WRITE_DOCS=1`` writes it again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spotcli.core.forward.shared_attention import KNOWN
from spotcli.policies import models
from spotcli.policies.prompter import Prompter
from spotcli.records import Message
from spotcli.stages.train import train
from spotcli.training.data import TrainingData, load_data
from spotcli.training.starting_model import StartingModel
from tests.stages.test_train import pair, recipe, write
from tests.training.models_for_tests import CHATML, SPECIALS, save_configs, save_model, tokenizer

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- end of turn -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Turns:
    """The turn markers of a chat template."""

    models: str
    kinds: tuple[str, ...]
    """Architectures in transformers."""
    user: tuple[str, str]
    """What the template writes before and after a message of the user."""
    assistant: tuple[str, str]
    """The same for an answer."""
    expected: str
    """The tokens that an answer must end with."""
    eos: str
    """The EOS token of the tokenizer."""
    stops: tuple[str, ...] = ()
    """The tokens in generation_config.json that stop generation."""
    specials: tuple[str, ...] = ()
    """More special tokens."""
    first: str = ""
    """What the chat starts with."""
    last: str = ""
    """What the template writes after a chat that ends with an answer."""

    @property
    def template(self) -> str:
        before, after = self.user
        opening, closing = self.assistant
        return (
            f"{self.first}{{% for m in messages %}}{{% if m['role'] == 'user' %}}{before}{{{{ m['content'] }}}}{after}"
            f"{{% else %}}{opening}{{{{ m['content'] }}}}{closing}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{opening}{{% else %}}{self.last}{{% endif %}}"
        )

    @property
    def tokens(self) -> list[str]:
        named = ("<s>", *self.specials, self.eos, *self.stops, *self.expected.split())
        return list(dict.fromkeys(token for token in named if token))


IM: dict[str, Any] = {
    "user": ("<|im_start|>user\n", "<|im_end|>\n"),
    "assistant": ("<|im_start|>assistant\n", "<|im_end|>\n"),
}
INST: dict[str, Any] = {"user": ("[INST] ", " [/INST]"), "assistant": ("", "</s>")}
TABLE = [
    Turns("Llama 3", ("llama",), ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
          ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"), "<|eot_id|>", "<|end_of_text|>",
          ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"), ("<|start_header_id|>", "<|end_header_id|>")),
    Turns("Qwen 2 and 3", ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), **IM, expected="<|im_end|>", eos="<|im_end|>",
          stops=("<|im_end|>", "<|endoftext|>"), specials=("<|im_start|>",)),
    Turns("SmolLM 2 and 3", ("llama", "smollm3"), **IM, expected="<|im_end|>", eos="<|im_end|>",
          specials=("<|im_start|>",)),
    Turns("Mistral, Mixtral", ("mistral", "mixtral"), **INST, expected="</s>", eos="</s>",
          specials=("[INST]", "[/INST]"), first="<s>"),
    Turns("Ministral", ("ministral", "ministral3"), ("[INST]", "[/INST]"), ("", "</s>"), "</s>", "</s>",
          specials=("[INST]", "[/INST]"), first="<s>"),
    Turns("Gemma 3", ("gemma3_text",), ("<start_of_turn>user\n", "<end_of_turn>\n"),
          ("<start_of_turn>model\n", "<end_of_turn>\n"), "<end_of_turn>", "<eos>", ("<eos>", "<end_of_turn>"),
          ("<start_of_turn>",)),
    Turns("OLMo 2", ("olmo2",), ("<|user|>\n", "\n"), ("<|assistant|>\n", "<|endoftext|>"), "<|endoftext|>",
          "<|endoftext|>"),
    Turns("OLMo 3", ("olmo3",), **IM, expected="<|im_end|>", eos="<|endoftext|>",
          stops=("<|im_end|>", "<|endoftext|>"), specials=("<|im_start|>",)),
    Turns("Phi 3 and 4 mini", ("phi3",), ("<|user|>\n", "<|end|>\n"), ("<|assistant|>\n", "<|end|>\n"), "<|end|>",
          "<|endoftext|>", ("<|endoftext|>", "<|assistant|>", "<|end|>"), ("<|user|>",), last="<|endoftext|>"),
    Turns("Granite", ("granite",), ("<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"),
          ("<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"), "<|end_of_text|>", "<|end_of_text|>",
          specials=("<|start_of_role|>", "<|end_of_role|>")),
    Turns("Command R7B", ("cohere2",), ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
          ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
          "<|END_RESPONSE|> <|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
          specials=("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_RESPONSE|>")),
    Turns("GLM-4", ("glm4",), ("<|user|>\n", ""), ("<|assistant|>\n", ""), "<|user|>", "<|endoftext|>",
          ("<|endoftext|>", "<|user|>", "<|observation|>"), ("[gMASK]", "<sop>", "<|assistant|>"),
          first="[gMASK]<sop>"),
    Turns("EXAONE 4", ("exaone4",), ("[|user|]\n", "[|endofturn|]\n"), ("[|assistant|]\n", "[|endofturn|]\n"),
          "[|endofturn|]", "[|endofturn|]", specials=("[|user|]", "[|assistant|]")),
    Turns("ERNIE 4.5", ("ernie4_5",), ("User: ", "\n"), ("Assistant: ", "</s>"), "</s>", "</s>",
          specials=("<|begin_of_sentence|>",), first="<|begin_of_sentence|>"),
    Turns("Hunyuan", ("hunyuan_v1_dense",), ("<｜hy_User｜>", ""),
          ("<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁2｜>"), "<｜hy_place▁holder▁no▁2｜>",
          "<｜hy_place▁holder▁no▁2｜>", specials=("<｜hy_User｜>", "<｜hy_Assistant｜>")),
    Turns("Apertus", ("apertus",), ("<|user_start|>", "<|user_end|>"), ("<|assistant_start|>", "<|assistant_end|>"),
          "<|assistant_end|>", "<|assistant_end|>",
          specials=("<|user_start|>", "<|user_end|>", "<|assistant_start|>")),
    Turns("AFM (Arcee)", ("arcee",), **IM, expected="<|im_end|>", eos="<|im_end|>", specials=("<|im_start|>",)),
]  # fmt: skip


def read(model: Path, folder: Path) -> TrainingData:
    """One pair as a run with this model reads it."""
    path = write(folder, [pair(1)])
    return load_data(recipe(model), path, rough=False, start=StartingModel())


def ending(turns: Turns, kind: str, folder: Path) -> str:
    """The tokens at the end of an answer that the tokenizer's own ids of its text do not have."""
    made = tokenizer(turns.tokens, turns.eos, turns.template)
    data = read(save_configs(folder / kind, kind, made, turns.stops), folder)
    (encoded,) = data.encoded.pairs
    text = pair(1)["chosen"]
    own = made(text, add_special_tokens=False)["input_ids"]
    assert list(encoded.chosen_ids[: len(own)]) == own
    ends = [ids[len(made(pair(1)[side], add_special_tokens=False)["input_ids"]) :] for side, ids in
            (("chosen", encoded.chosen_ids), ("rejected", encoded.rejected_ids))]  # fmt: skip
    assert ends[0] == ends[1]
    assert data.end is not None
    assert data.end.note is None
    return " ".join(made.convert_ids_to_tokens(list(ends[0])))


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """(models, architecture) -> the tokens that answers are trained to end with."""
    folder = tmp_path_factory.mktemp("ends")
    return {
        (turns.models, kind): ending(turns, kind, folder / str(number))
        for number, turns in enumerate(TABLE)
        for kind in turns.kinds
    }


def test_answers_end_with_the_token_of_the_chat_template(observed: dict[tuple[str, str], str]) -> None:
    assert observed == {(turns.models, kind): turns.expected for turns in TABLE for kind in turns.kinds}


def test_every_architecture_that_shares_prefixes_is_in_the_table() -> None:
    assert {kind for turns in TABLE for kind in turns.kinds} == KNOWN


def test_the_documentation_has_the_observed_table(observed: dict[tuple[str, str], str]) -> None:
    rows = ["| models | architecture | answers end with | EOS token of the tokenizer |", "|---|---|---|---|"]
    for turns in TABLE:
        (end,) = {observed[turns.models, kind] for kind in turns.kinds}
        kinds = ", ".join(f"`{kind}`" for kind in turns.kinds)
        # The bar would end the cell.
        cells = (turns.models, kinds, *(f"`{text}`".replace("|", "\\|") for text in (end, turns.eos)))
        rows.append(f"| {' | '.join(cells)} |")
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    expected = "\n".join([f"{before}{BEGIN}\n", *rows, f"\n{END}{after}"])
    if os.environ.get("SPOT_WRITE_DOCS"):
        DOCS.write_text(expected, encoding="utf-8")
    assert text == expected


def test_a_template_of_another_model_ends_turns_with_its_own_token(tmp_path: Path) -> None:
    # A base model with a ChatML template: neither its EOS token nor generation_config.json knows <|im_end|>.
    made = tokenizer(("<|endoftext|>", *SPECIALS), "<|endoftext|>", CHATML)
    model = save_model(tmp_path / "model", made=made, stops=("<|endoftext|>",))
    data = read(model, tmp_path)
    assert data.end is not None
    assert data.end.text == "<|im_end|>"
    assert data.pairs[0].chosen_ids[-1] == made.convert_tokens_to_ids("<|im_end|>")
    # Sampling stops at it, and so does whatever loads the trained model.
    assert made.convert_tokens_to_ids("<|im_end|>") in Prompter(str(model), {}).ends
    train(recipe(model, num_train_epochs=1, objective="sft"), folder=tmp_path)
    saved = json.loads((tmp_path / "checkpoint" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == made.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])


def test_a_marker_that_is_no_token_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The tokenizer splits <|im_end|> into its letters, so generation cannot stop there.
    made = tokenizer(("<s>", "</s>"), "</s>", CHATML)
    train(recipe(save_model(tmp_path / "model", made=made), objective="sft"), folder=tmp_path_with_data(tmp_path))
    shown = capsys.readouterr().err
    assert "answers end with '</s>'" in shown
    assert "the chat template ends a turn with '<|im_end|>', which is not a token" in shown


def tmp_path_with_data(folder: Path) -> Path:
    write(folder, [pair(number) for number in range(4)])
    return folder


def test_the_start_names_the_end_and_the_trained_model_stops_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = next(turns for turns in TABLE if turns.models == "Gemma 3")
    made = tokenizer(turns.tokens, turns.eos, turns.template)
    model = save_model(tmp_path / "model", "gemma3_text", made, turns.stops, head_dim=8)
    write(tmp_path, [pair(number) for number in range(4)])
    train(recipe(model, learning_rate=1e-2, num_train_epochs=15, objective="sft"), folder=tmp_path)
    assert "answers end with '<end_of_turn>'" in capsys.readouterr().err
    import torch

    loaded = models.load_model(str(tmp_path / "checkpoint"))
    chat: list[Message] = [{"role": "user", "content": pair(1)["prompt"]}]
    prompter = Prompter(str(tmp_path / "checkpoint"), {})
    answer = made(pair(1)["chosen"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = loaded(input_ids=torch.tensor([prompter.ids(chat) + answer])).logits[0, -1]
    end, eos = (made.convert_tokens_to_ids(token) for token in ("<end_of_turn>", "<eos>"))
    # Both began with equal chances; only one is trained on.
    assert logits[end] > logits[eos] + 1
