"""Prompts as token ids: one BOS at most, the template's own switch for thinking, room in the context."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import RecipeError, UserError
from spotcli.policies.prompter import Prompter, switch
from spotcli.records import Message
from tests.conftest import set_clock

ASKED: list[Message] = [{"role": "user", "content": "Why?"}]
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
    """The tiny model with another template, a tokenizer that adds a BOS by itself, other configuration."""
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
    for name, more in (("config.json", config), ("generation_config.json", generation)):
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | (more or {})))
    return str(folder)


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize(("head", "expected"), [("", 0), ("{{ bos_token }}", 1), ("<|im_start|>", 1)])
def test_there_is_the_templates_bos_and_no_other(
    tiny_model: Path, tmp_path: Path, head: str, expected: int, adds_bos: bool
) -> None:
    prompter = Prompter(variant(tiny_model, tmp_path / "model", head + PLAIN, adds_bos=adds_bos), {})
    # What such a tokenizer does when it is asked as one is used to: a second BOS.
    assert prompter.tokenizer("x")["input_ids"][:1] == ([BOS] if adds_bos else prompter.tokenizer("x")["input_ids"])
    ids = prompter.ids(ASKED)
    assert ids.count(BOS) == expected
    assert prompter.facts(ASKED)["prompt_bos"] == expected
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
def test_the_switch_is_the_templates_own(template: str, thinking: Any, expected: dict[str, bool]) -> None:
    assert switch(template, thinking) == expected


def test_thinking_without_a_switch_is_the_users_error() -> None:
    with pytest.raises(RecipeError, match="no switch for thinking") as caught:
        switch("no such thing", "on")
    assert "chat_template_kwargs" in str(caught.value.cure)


def test_the_end_of_the_prompt_shows_that_thinking_is_off(tiny_model: Path, tmp_path: Path) -> None:
    model = variant(tiny_model, tmp_path / "model", PLAIN + THINKS)
    for thinking, tail in (("auto", "> "), ("on", "> "), ("off", "> <think>\n\n</think>\n")):
        prompter = Prompter(model, {}, thinking)
        assert prompter.facts(ASKED)["prompt_tail"] == "user: Why?\n" + tail
        assert prompter.tokenizer.decode(prompter.ids(ASKED)) == "user: Why?\n" + tail
    # What the user sets by hand has the last word.
    assert Prompter(model, {"enable_thinking": True}, "off").facts(ASKED)["prompt_tail"].endswith("> ")


DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}\n"
)


def test_a_prompt_is_the_same_tomorrow(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = variant(tiny_model, tmp_path / "model", DATED + PLAIN)
    prompts, plain = set(), set()
    for day in ("2031-03-01", "2031-03-02"):
        set_clock(monkeypatch, day)
        prompter = Prompter(model, {})
        prompts.add(prompter.tokenizer.decode(prompter.ids(ASKED)))
        plain.add(prompter.tokenizer.apply_chat_template([dict(each) for each in ASKED], tokenize=False))
        assert prompter.facts(ASKED)["template_date"] == "2024-07-26"
    assert prompts == {"26 Jul 2024\nuser: Why?\n> "}
    # What the library alone makes of it.
    assert plain == {"01 Mar 2031\nuser: Why?\n", "02 Mar 2031\nuser: Why?\n"}
    # What the user sets by hand has the last word.
    told = Prompter(model, {"date_string": "1 May"})
    assert told.tokenizer.decode(told.ids(ASKED)) == "1 May\nuser: Why?\n> "
    assert "template_date" not in Prompter(str(tiny_model), {}).facts(ASKED)


@pytest.mark.parametrize("name", ["llama3_2", "gptoss"])
def test_templates_with_a_clock_write_what_they_would_write_that_day(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = files(pytest.importorskip("trl", reason="TRL is not installed")) / "chat_templates" / f"{name}.jinja"
    prompter = Prompter(variant(tiny_model, tmp_path / "model", source.read_text()), {})
    set_clock(monkeypatch, "2024-07-26")
    plain = prompter.tokenizer.apply_chat_template(
        [dict(each) for each in ASKED], tokenize=False, add_generation_prompt=True
    )
    assert "26 Jul 2024" in plain or "2024-07-26" in plain
    set_clock(monkeypatch, "2031-03-01")
    assert prompter.tokenizer.decode(prompter.ids(ASKED)) == plain


def test_an_answer_has_what_the_context_leaves(tiny_model: Path, tmp_path: Path) -> None:
    prompter = Prompter(variant(tiny_model, tmp_path / "model", PLAIN, config={"max_position_embeddings": 50}), {})
    # "user: Why?\n> " is 13 tokens of a byte each.
    ids = prompter.ids(ASKED)
    assert len(ids) == 13
    assert (prompter.room(ids, 20), prompter.room(ids, 37), prompter.room(ids, 100)) == (20, 37, 37)
    assert (prompter.room([5] * 50, 20), prompter.room([5] * 70, 20)) == (0, 0)


def test_every_end_of_turn_ends_an_answer_and_the_models_own_sampling_is_named_unused(
    tiny_model: Path, tmp_path: Path
) -> None:
    own = {"eos_token_id": [1, 40], "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
    facts = Prompter(variant(tiny_model, tmp_path / "model", PLAIN, generation=own), {}).facts(ASKED)
    assert facts["stop_token_ids"] == [1, 40]
    assert facts["model_defaults_not_used"] == {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}


def test_a_model_without_a_template_is_the_users_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chat template"):
        Prompter(variant(tiny_model, tmp_path / "model", None), {}).ids(ASKED)
