"""The recipe: YAML, overrides, options, errors with their place, and the resolved recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from spotcli import recipe as recipes
from spotcli.errors import RecipeError
from spotcli.evaluation.published_scores import GROUPS, TABLES
from spotcli.evaluation.tasks.builtin import BUILTIN
from spotcli.recipe import LoraSection, Recipe, flag, known_keys, section, suggest
from spotcli.recipe_yaml import dump, load

ROOT = Path(__file__).parent.parent

RECIPES = [
    "llama-3.1-8b-instruct.yaml",
    "qwen3-8b-fsdp.yaml",
    "qwen3-8b-lora.yaml",
    "qwen3-8b.yaml",
    "reproduce-qwen3-8b.yaml",
    "smollm2-135m.yaml",
]
"""All recipes, listed so that a new one is not missed."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "r.yaml"


def refused(path: Path | None, overrides: list[str] | None = None, options: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides, options)
    return str(caught.value)


# Keys


def test_without_a_recipe_all_values_are_defaults() -> None:
    assert load(None).model_dump() == Recipe().model_dump()
    assert load(None).sources == {}


@pytest.mark.parametrize("text", ["", "# nothing\n", "sample:\n  # trials: 2\ntrain:\n"])
def test_a_recipe_without_keys_has_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)
    assert load(file).model_dump() == Recipe().model_dump()
    assert load(file, ["sample.trials=2", "train.beta=1"]).sample.trials == 2


def test_every_recipe_loads_and_its_dump_loads_again(tmp_path: Path) -> None:
    paths = sorted((ROOT / "recipes").iterdir())
    assert [path.name for path in paths] == RECIPES
    for path in paths:
        recipe = load(path)
        again = tmp_path / path.name
        again.write_text(dump(recipe), encoding="utf-8")
        assert load(again).model_dump() == recipe.model_dump()
        assert f"recipes/{path.name}" in path.read_text(encoding="utf-8"), "the comment at the top contains the command"


def test_the_reproduction_has_the_settings_of_the_paper() -> None:
    settings = load(ROOT / "recipes" / "reproduce-qwen3-8b.yaml").eval
    assert (settings.temperature, settings.top_p, settings.top_k, settings.max_new_tokens) == (0.7, 0.8, 20, 32768)
    assert settings.chat_template_kwargs == {"enable_thinking": False}
    assert settings.trials is None
    trials = {name: BUILTIN[name].trials for name in settings.tasks}
    assert {name for name, count in trials.items() if count == 16} == {"aime24", "aime25", "amc23"}
    assert {name for name, count in trials.items() if count == 5} == {*trials} - {"aime24", "aime25", "amc23"}
    assert set(trials) == set(GROUPS["overall"])
    assert settings.published in TABLES


def test_keys_of_training_arguments_are_accepted(file: Path) -> None:
    file.write_text("train:\n  learning_rate: 1e-5\n  beta: 0.5\n")
    train = load(file).train
    assert train.beta == 0.5
    assert train.training_arguments == {"learning_rate": 1e-5}


def test_every_key_is_documented() -> None:
    def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        yield model
        for name in model.model_fields:
            inner = recipes.section(model, name)
            if inner:
                yield from sections(inner)

    for model in sections(Recipe):
        for name, field in model.model_fields.items():
            assert field.description or recipes.section(model, name), f"{model.__name__}.{name}"


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("5E-5", 5e-5),
        ("1e5", 1e5),
        ("1.5e5", 1.5e5),
        ("1.e-3", 1e-3),
        (".5e3", 500.0),
        ("+1e-6", 1e-6),
        ("-1e-6", -1e-6),
        ("0.1", 0.1),
        ("3", 3),
        ("e5", "e5"),
        ("1e", "1e"),
        ("true", True),
        ("null", None),
        ("'a, b'", "a, b"),
        ("[1e-5, {a: 2e-5}]", [1e-5, {"a": 2e-5}]),
    ],
)
def test_numbers_in_scientific_notation_are_read(file: Path, text: str, value: Any) -> None:
    file.write_text(f"train:\n  extra: {text}\n")
    for recipe in (load(file), load(None, [f"train.extra={text}"])):
        assert recipe.train.training_arguments["extra"] == value
        assert type(recipe.train.training_arguments["extra"]) is type(value)


def test_options_precede_overrides_and_those_the_recipe_and_its_defaults(file: Path) -> None:
    file.write_text("seed: 1\nsample: {trials: 2, top_k: 3, limit: 4}\n")
    recipe = load(
        file, ["sample.trials=5", "sample.top_k=6", "sample.top_k=7"], {"sample.trials": 8, "sample.limit": None}
    )
    assert recipe.seed == 1
    assert (recipe.sample.trials, recipe.sample.top_k, recipe.sample.limit, recipe.sample.temperature) == (8, 7, 4, 0.7)
    assert recipe.sources == {
        "seed": f"{file}:1",
        "sample": f"{file}:2",
        "sample.trials": "--trials",
        "sample.top_k": "-s sample.top_k=7",
        "sample.limit": f"{file}:2",
    }


def test_an_override_can_contain_spaces_equals_signs_and_structures() -> None:
    recipe = load(None, ["name = a=b", "rectify.params={reasoning_effort: low}", "train.lora.r=8", "eval.tasks=[a, b]"])
    assert recipe.name == "a=b"
    assert recipe.rectify.params == {"reasoning_effort": "low"}
    assert recipe.train.lora == LoraSection(r=8)
    assert recipe.eval.tasks == ["a", "b"]
    assert recipe.sources["rectify.params.reasoning_effort"] == "-s rectify.params={reasoning_effort: low}"


def test_an_override_of_a_section_replaces_it(file: Path) -> None:
    file.write_text("train:\n  lora:\n    r: 4\n    alpha: 5\n")
    recipe = load(file, ["train.lora={r: 8}"])
    assert recipe.train.lora == LoraSection(r=8)
    assert recipe.sources == {
        "train": f"{file}:1",
        "train.lora": "-s train.lora={r: 8}",
        "train.lora.r": "-s train.lora={r: 8}",
    }
    assert load(file, ["train.lora=null"]).train.lora is None


def test_an_override_of_one_section_does_not_change_its_yaml_alias(file: Path) -> None:
    file.write_text("sample: &s\n  top_p: 0.5\neval:\n  <<: *s\n  limit: 3\n")
    recipe = load(file, ["sample.top_p=0.9"])
    assert (recipe.sample.top_p, recipe.eval.top_p, recipe.eval.limit) == (0.9, 0.5, 3)
    assert recipe.sources["eval.top_p"] == f"{file}:2"


# Errors with their place and cure


def test_an_unknown_key_is_refused_with_the_nearest_name(file: Path) -> None:
    file.write_text("seed: 0\nsample:\n  temprature: 1\n")
    assert refused(file) == f"{file}:3: sample.temprature: unknown key\n  cure: did you mean 'temperature'?"
    file.write_text("sampel: {}\n")
    assert refused(file) == f"{file}:1: sampel: unknown key\n  cure: did you mean 'sample'?"
    file.write_text("eval:\n  bogus: 4\n")
    assert refused(file).startswith(f"{file}:2: eval.bogus: unknown key\n  cure: known keys: tasks, output, trials,")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample.trails=2", "unknown key\n  cure: did you mean 'trials'?"),
        ("samples.trials=2", "unknown key\n  cure: did you mean 'sample'?"),
        ("train.beta.x=2", "'beta' is a value, not a section"),
        ("sample=5", "expected a section of keys, got a value"),
        ("sample.trials", "invalid override: expected KEY=VALUE"),
        ("=5", "invalid override: expected KEY=VALUE"),
        ("sample.trials=[1", "invalid YAML (expected ',' or ']', but got '<stream end>')"),
        ("sample.trials=0", "input should be greater than 0, got 0"),
        ("sample.top_p=1.5", "input should be less than or equal to 1, got 1.5"),
        ("sample.engine=gpu", "input should be 'auto', 'vllm', 'transformers' or 'api', got 'gpu'"),
        ("train.shift=mean", "input should be 'ema', 'running' or 'none', got 'mean'"),
        ("train.lora.target_modules=5", "input should be a valid string, got 5"),
        ("train.lora={r: 0}", "input should be greater than 0, got 0"),
        ("eval.task_settings.aime24.trails=3", "unknown key\n  cure: did you mean 'trials'?"),
        ("eval.task_settings={a.jsonl: {trails: 3}}", "unknown key\n  cure: did you mean 'trials'?"),
        ("eval.task_settings.aime24.trials=0", "input should be greater than 0, got 0"),
        ("eval.tasks=[1]", "input should be a valid string, got 1"),
    ],
)
def test_an_invalid_override_is_reported(file: Path, override: str, message: str) -> None:
    # The error names the override, not the valid value in the recipe.
    file.write_text("sample:\n  trials: 1\n  top_p: 1\ntrain:\n  beta: 1\n  lora: {r: 1}\n")
    assert refused(file, [override]) == f"-s {override}: {message}"


def test_an_invalid_option_is_reported_with_its_flag() -> None:
    assert refused(None, None, {"sample.max_new_tokens": 0}) == (
        "--max-new-tokens: input should be greater than 0, got 0"
    )
    assert flag("eval.tasks") == "--task"
    assert flag("sample.problems") == "argument PROBLEMS"


def test_an_invalid_value_of_the_recipe_is_reported_with_its_line(file: Path) -> None:
    file.write_text("train:\n  beta: -1\n")
    # `train.bet` is a prefix of `train.beta` but another key.
    message = f"{file}:2: train.beta: input should be greater than 0, got -1"
    assert refused(file, ["train.bet=1", "train.learning_rate=1"], {"seed": 3}) == message


def test_a_long_invalid_value_is_shortened(file: Path) -> None:
    assert refused(None, [f"train.dtype={'x' * 500}"]).endswith(f"got '{'x' * 79}...")


def test_a_duplicate_key_is_refused(file: Path) -> None:
    file.write_text("sample:\n  trials: 1\n  top_k: 3\n  trials: 2\n")
    assert (
        refused(file)
        == f"{file}:4: sample.trials: duplicate key (first in line 2)\n  cure: remove one of the two lines"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"- a\n- b\n", "{file}: expected a mapping of keys to values, got a list"),
        (b"just text", "{file}: expected a mapping of keys to values, got a str"),
        (b"a: b\nc: [1,\nd: 2\n", "{file}:4: invalid YAML (expected ',' or ']', but got '<stream end>')"),
        (b"a: !x 1\n", "{file}:1: invalid YAML (could not determine a constructor for the tag '!x')"),
        (b"a: &x [*x]\n", "{file}:1: an alias refers to itself"),
        (b"a: " + b"[" * 5000, "{file}: nested too deeply"),
        (b"a: \xff\n", "{file}: not a text file"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_refused(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    assert refused(file) == message.format(file=file)


def test_a_missing_recipe_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "nowhere.yaml"
    assert refused(file) == f"{file}: recipe not found\n  cure: recipes/ contains examples"
    assert refused(tmp_path).startswith(f"{tmp_path}: expected a recipe, got a folder")


def test_the_cure_of_an_unknown_key_is_the_nearest_name() -> None:
    assert suggest("learning_rat", ["learning_rate", "beta"]) == "did you mean 'learning_rate'?"
    assert suggest("zzz", ["learning_rate", "beta"]) == "known keys: learning_rate, beta"
    assert known_keys("train.lora") == ["r", "alpha", "dropout", "target_modules"]
    assert "trials" in known_keys("eval.task_settings.aime24")
    assert known_keys("eval.task_settings") == known_keys("eval.task_settings.aime24.trials") == []
    assert known_keys("train.beta") == known_keys("nowhere.at.all") == []


# The resolved recipe


def test_the_dump_names_the_source_of_each_value(file: Path) -> None:
    file.write_text(
        "name: small\neval:\n  tasks: [arithmetic, connect4]\n  chat_template_kwargs: {enable_thinking: false}\n"
    )
    lines = dump(load(file, ["train.learning_rate=5e-5", "train.lora.r=4"], {"seed": 3})).splitlines()
    for line in [
        f"name: small  # {file}:1",
        "seed: 3  # --seed",
        "  temperature: 0.7  # default",
        "  learning_rate: 5.0e-05  # -s train.learning_rate=5e-5",
        "    r: 4  # -s train.lora.r=4",
        "    alpha: 32  # default",
        f"  tasks:  # {file}:3",
        "  - connect4",
        f"    enable_thinking: false  # {file}:4",
    ]:
        assert line in lines


@pytest.mark.parametrize(
    "value", ["a: b # c", "two\nlines\n", "x" * 500, "  ", "", "'", "5e-5x", "ü\u2028\x85", "- a", "null", "1_000", "~"]
)
def test_any_text_is_unchanged_in_the_dump(file: Path, value: Any) -> None:
    recipe = Recipe(grader=value)
    recipe.rectify.params = {value: [value, {value: value}], "on": {"yes": [[]]}}
    recipe._sources["grader"] = "-s grader=two\nlines: # x"
    file.write_text(dump(recipe), encoding="utf-8", newline="")
    assert yaml.safe_load(dump(recipe)) == recipe.model_dump(mode="json")
    assert load(file).model_dump() == recipe.model_dump()


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGES = "m0: &m0 {k0: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "the aliases stand for "),
        (MERGES, "the aliases stand for "),
        ("sample: &a\n  params: *a\n", "r.yaml:1: an alias refers to itself"),
        ("seed: 9999-99-99\n", "r.yaml:1: seed: input should be a valid integer"),
        ("name: x\nseed: " + "9" * 5000, "r.yaml:2: a number has more than 4,000 digits"),
        ("sample: {params: " + "[" * 3000 + "]" * 3000 + "}", "nested too deeply"),
        ("name: !!python/object/apply:os.system ['true']\n", "could not determine a constructor for the tag"),
        ("a: &a 3\nsample:\n  <<: *a\n", "invalid YAML (expected a mapping"),
        ("sample:\n\tlimit: 3\n", "indent with spaces; YAML does not allow tabs"),
        ("name: a\0b\n", "r.yaml:1: invalid YAML (the control character U+0000)"),
        ("1: 2\n", "r.yaml:1: expected text as a key, got 1"),
        ("seed: 1\n---\nseed: 2\n", "remove the line `---`"),
        ("seed: !!int abc\n", "r.yaml: invalid YAML (invalid literal"),
        ("{}" + " " * 1_000_001, "got a file of 1,000,003 bytes"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_yaml_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert message in str(caught.value)


def test_dates_are_text_and_switches_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("\ufeffname: 2026-01-31\nsample: {thinking: on}\n".encode())
    recipe = load(path, ["sample.thinking=off"])
    assert (load(path).name, load(path).sample.thinking, recipe.sample.thinking) == ("2026-01-31", "on", "off")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("seed: 1\n".encode("utf-16"))
    with pytest.raises(RecipeError, match="expected UTF-8, got UTF-16"):
        load(path)


def numeric_keys() -> list[str]:
    """Every recipe key whose value can be a number."""
    keys = []
    for name in ("", "sample", "rectify", "train", "eval"):
        model: Any = section(Recipe, name) if name else Recipe
        for key, field in model.model_fields.items():
            if re.search(r"\b(int|float)\b", str(field.annotation)):
                keys.append(f"{name}.{key}".lstrip("."))
    return keys


@pytest.mark.parametrize("key", [*numeric_keys(), "train.learning_rate", "train.lora.r", "sample.params.top"])
def test_no_number_is_larger_than_64_bits_or_infinite(key: str) -> None:
    for value in ("1" + "0" * 30, ".inf", "-.inf", ".nan", "1e400", "9" * 4500):
        with pytest.raises(RecipeError) as caught:
            load(None, [f"{key}={value}"])
        assert key in str(caught.value.where)
        assert len(str(caught.value)) < 500


def test_there_are_numeric_keys() -> None:
    assert len(numeric_keys()) > 40
