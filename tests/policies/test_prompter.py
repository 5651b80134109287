"""Prompts as token ids: at most one BOS, the template's switch for thinking, room in the context."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import DataError, RecipeError, UserError
from spotcli.policies import Request
from spotcli.policies.prompter import Prompter, Thinking, switch
from spotcli.records import Message
from tests.conftest import set_clock

QUESTION: list[Message] = [{"role": "user", "content": "Why?"}]
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}> {% endif %}"
THINKS = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% endif %}"
BOS = 0


def variant(
    source: Path,
    folder: Path,
    template: str | None,
    *,
    adds_bos: bool = False,
    config: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
) -> str:
    """The tiny model with another template, configuration, or a tokenizer that adds a BOS itself."""
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if adds_bos:
        inner = json.loads((folder / "tokenizer.json").read_text())
        inner["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [BOS], "tokens": ["<|im_start|>"]}},
        }
        (folder / "tokenizer.json").write_text(json.dumps(inner))
    for name, changes in (("config.json", config), ("generation_config.json", generation)):
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | (changes or {})))
    return str(folder)


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize(("head", "expected"), [("", 0), ("{{ bos_token }}", 1), ("<|im_start|>", 1)])
def test_the_prompt_has_only_the_bos_of_the_template(
    tiny_model: Path, tmp_path: Path, head: str, expected: int, adds_bos: bool
) -> None:
    prompter = Prompter(variant(tiny_model, tmp_path / "model", head + PLAIN, adds_bos=adds_bos), {})
    # Called as usual, such a tokenizer adds a second BOS.
    assert prompter.tokenizer("x")["input_ids"][:1] == ([BOS] if adds_bos else prompter.tokenizer("x")["input_ids"])
    ids = prompter.ids(QUESTION)
    assert ids.count(BOS) == expected
    assert prompter.facts(QUESTION).prompt_bos == expected
    assert prompter.tokenizer.decode(ids) == "<|im_start|>" * expected + "user: Why?\n> "


@pytest.mark.parametrize(
    ("template", "thinking", "expected"),
    [
        ("... enable_thinking ...", "on", {"enable_thinking": True}),
        ("... enable_thinking ...", "off", {"enable_thinking": False}),
        ("... thinking ...", "on", {"thinking": True}),
        ("... thinking ...", "off", {"thinking": False}),
        ("... enable_thinking ...", "auto", {}),
        ("no such thing", "off", {}),
    ],
)
def test_the_switch_is_a_parameter_of_the_template(template: str, thinking: Any, expected: dict[str, bool]) -> None:
    assert switch(template, thinking) == expected


def test_thinking_without_a_switch_is_a_user_error() -> None:
    with pytest.raises(RecipeError, match="no switch for thinking") as caught:
        switch("no such thing", "on")
    assert "chat_template_kwargs" in str(caught.value.cure)


def test_the_end_of_the_prompt_shows_that_thinking_is_off(tiny_model: Path, tmp_path: Path) -> None:
    model = variant(tiny_model, tmp_path / "model", PLAIN + THINKS)
    tails: dict[Thinking, str] = {"auto": "> ", "on": "> ", "off": "> <think>\n\n</think>\n"}
    for thinking, tail in tails.items():
        prompter = Prompter(model, {}, thinking)
        assert prompter.facts(QUESTION).prompt_tail == "user: Why?\n" + tail
        assert prompter.tokenizer.decode(prompter.ids(QUESTION)) == "user: Why?\n" + tail
    # A parameter that the user sets takes precedence.
    assert Prompter(model, {"enable_thinking": True}, "off").facts(QUESTION).prompt_tail.endswith("> ")


DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}\n"
)


def test_a_prompt_is_the_same_on_every_day(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = variant(tiny_model, tmp_path / "model", DATED + PLAIN)
    prompts, plain = set(), set()
    for day in ("2031-03-01", "2031-03-02"):
        set_clock(monkeypatch, day)
        prompter = Prompter(model, {})
        prompts.add(prompter.tokenizer.decode(prompter.ids(QUESTION)))
        plain.add(prompter.tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False))
        assert prompter.facts(QUESTION).template_date == "2024-07-26"
    assert prompts == {"26 Jul 2024\nuser: Why?\n> "}
    # The library alone renders today's date.
    assert plain == {"01 Mar 2031\nuser: Why?\n", "02 Mar 2031\nuser: Why?\n"}
    # A parameter that the user sets takes precedence.
    given = Prompter(model, {"date_string": "1 May"})
    assert given.tokenizer.decode(given.ids(QUESTION)) == "1 May\nuser: Why?\n> "
    assert "template_date" not in Prompter(str(tiny_model), {}).facts(QUESTION).as_dict()


@pytest.mark.parametrize("name", ["llama3_2", "gptoss"])
def test_templates_with_a_clock_render_the_fixed_date(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = files(pytest.importorskip("trl", reason="TRL is not installed")) / "chat_templates" / f"{name}.jinja"
    prompter = Prompter(variant(tiny_model, tmp_path / "model", source.read_text()), {})
    set_clock(monkeypatch, "2024-07-26")
    plain = prompter.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert "26 Jul 2024" in plain or "2024-07-26" in plain
    set_clock(monkeypatch, "2031-03-01")
    assert prompter.tokenizer.decode(prompter.ids(QUESTION)) == plain


def test_an_answer_may_have_the_rest_of_the_context(tiny_model: Path, tmp_path: Path) -> None:
    prompter = Prompter(variant(tiny_model, tmp_path / "model", PLAIN, config={"max_position_embeddings": 50}), {})
    # "user: Why?\n> " is 13 tokens of one byte each.
    ids = prompter.ids(QUESTION)
    assert len(ids) == 13
    assert (prompter.room(ids, 20), prompter.room(ids, 37), prompter.room(ids, 100)) == (20, 37, 37)
    assert (prompter.room([5] * 50, 20), prompter.room([5] * 70, 20)) == (0, 0)


def test_every_eos_token_ends_an_answer_and_unused_model_defaults_are_named(tiny_model: Path, tmp_path: Path) -> None:
    own = {"eos_token_id": [1, 40], "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
    facts = Prompter(variant(tiny_model, tmp_path / "model", PLAIN, generation=own), {}).facts(QUESTION)
    assert facts.stop_token_ids == [1, 40]
    assert facts.model_defaults_not_used == {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}


def test_tools_and_errors_of_the_template_of_a_request(tiny_model: Path, tmp_path: Path) -> None:
    template = (
        "{% if tools %}{{ tools | tojson }}\n{% endif %}"
        "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}"
    )
    prompter = Prompter(variant(tiny_model, tmp_path / "model", template + PLAIN), {})
    tools = [{"name": "add"}]
    request = Request(("p1", 0), QUESTION, seed=0, tools=tools)
    assert prompter.tokenizer.decode(prompter.prompt(request)) == '[{"name": "add"}]\nuser: Why?\n> '
    with pytest.raises(DataError, match="the chat template rejects the messages: one") as caught:
        prompter.prompt(Request(("p1", 0), [*QUESTION, *QUESTION], seed=0))
    assert caught.value.where == "problem p1"
    plain = Prompter(variant(tiny_model, tmp_path / "plain", PLAIN), {})
    with pytest.raises(DataError, match="no place for tools"):
        plain.prompt(request)


def test_a_model_without_a_template_is_a_user_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chat template"):
        Prompter(variant(tiny_model, tmp_path / "model", None), {}).ids(QUESTION)
