from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from spotcli import recipe as recipes
from spotcli.errors import RecipeError
from spotcli.recipe import Recipe, known_keys, suggest
from spotcli.recipe_yaml import dump, load

ROOT = Path(__file__).parent.parent

# All of them: a recipe that a glob misses would go untested in silence.
RECIPES = ["llama-3.1-8b-instruct.yaml", "qwen3-8b-lora.yaml", "qwen3-8b.yaml", "smollm2-135m.yaml"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "r.yaml"


def refused(*arguments, **options) -> str:
    with pytest.raises(RecipeError) as caught:
        load(*arguments, **options)
    return str(caught.value)


# What is in a recipe


def test_no_recipe_is_the_defaults():
    assert load(None).model_dump() == Recipe().model_dump()
    assert load(None).sources == {}


@pytest.mark.parametrize("text", ["", "# nothing\n", "sample:\n  # trials: 2\ntrain:\n"])
def test_a_recipe_whose_keys_are_commented_out_is_the_defaults(file, text):
    file.write_text(text)
    assert load(file).model_dump() == Recipe().model_dump()
    assert load(file, ["sample.trials=2", "train.beta=1"]).sample.trials == 2


def test_every_recipe_loads_and_survives_its_dump(tmp_path):
    found = sorted((ROOT / "recipes").iterdir())
    assert [path.name for path in found] == RECIPES
    for path in found:
        recipe = load(path)
        again = tmp_path / path.name
        again.write_text(dump(recipe), encoding="utf-8")
        assert load(again).model_dump() == recipe.model_dump()
        assert f"recipes/{path.name}" in path.read_text(encoding="utf-8"), "its head names the command that runs it"


def test_the_keys_of_training_arguments_pass(file):
    file.write_text("train:\n  learning_rate: 1e-5\n  beta: 0.5\n")
    train = load(file).train
    assert train.beta == 0.5
    assert train.training_arguments == {"learning_rate": 1e-5}


def test_every_key_is_documented():
    def sections(model: type[BaseModel]):
        yield model
        for name in model.model_fields:
            inner = recipes._section(model, name)
            if inner:
                yield from sections(inner)

    for model in sections(Recipe):
        for name, field in model.model_fields.items():
            assert field.description or recipes._section(model, name), f"{model.__name__}.{name}"


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
def test_numbers_are_read_as_people_write_them(file, text, value):
    file.write_text(f"train:\n  extra: {text}\n")
    for found in (load(file), load(None, [f"train.extra={text}"])):
        assert found.train.training_arguments["extra"] == value
        assert type(found.train.training_arguments["extra"]) is type(value)


def test_options_go_before_overrides_before_the_recipe_before_defaults(file):
    file.write_text("seed: 1\nsample: {trials: 2, top_k: 3, limit: 4}\n")
    found = load(
        file, ["sample.trials=5", "sample.top_k=6", "sample.top_k=7"], {"sample.trials": 8, "sample.limit": None}
    )
    assert found.seed == 1
    assert (found.sample.trials, found.sample.top_k, found.sample.limit, found.sample.temperature) == (8, 7, 4, 0.7)
    assert found.sources == {
        "seed": f"{file}:1",
        "sample": f"{file}:2",
        "sample.trials": "--trials",
        "sample.top_k": "-s sample.top_k=7",
        "sample.limit": f"{file}:2",
    }


def test_an_override_can_hold_spaces_equals_signs_and_structures():
    found = load(None, ["name = a=b", "rectify.params={reasoning_effort: low}", "train.lora.r=8", "eval.tasks=[a, b]"])
    assert found.name == "a=b"
    assert found.rectify.params == {"reasoning_effort": "low"}
    assert (found.train.lora.r, found.train.lora.alpha) == (8, 32)
    assert found.eval.tasks == ["a", "b"]
    assert found.sources["rectify.params.reasoning_effort"] == "-s rectify.params={reasoning_effort: low}"


def test_an_override_of_a_section_replaces_it(file):
    file.write_text("train:\n  lora:\n    r: 4\n    alpha: 5\n")
    found = load(file, ["train.lora={r: 8}"])
    assert (found.train.lora.r, found.train.lora.alpha) == (8, 32)
    assert found.sources == {
        "train": f"{file}:1",
        "train.lora": "-s train.lora={r: 8}",
        "train.lora.r": "-s train.lora={r: 8}",
    }
    assert load(file, ["train.lora=null"]).train.lora is None


def test_an_override_of_one_section_leaves_its_yaml_alias_alone(file):
    file.write_text("sample: &s\n  top_p: 0.5\neval:\n  <<: *s\n  limit: 3\n")
    found = load(file, ["sample.top_p=0.9"])
    assert (found.sample.top_p, found.eval.top_p, found.eval.limit) == (0.9, 0.5, 3)
    assert found.sources["eval.top_p"] == f"{file}:2"


# What is wrong, where, and the cure


def test_an_unknown_key_is_refused_with_the_nearest_name(file):
    file.write_text("seed: 0\nsample:\n  temprature: 1\n")
    assert refused(file) == f"{file}:3: sample.temprature: unknown key\n  cure: did you mean 'temperature'?"
    file.write_text("sampel: {}\n")
    assert refused(file) == f"{file}:1: sampel: unknown key\n  cure: did you mean 'sample'?"
    file.write_text("train:\n  lora:\n    rank: 4\n")
    assert refused(file) == (
        f"{file}:3: train.lora.rank: unknown key\n  cure: known here: r, alpha, dropout, target_modules"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample.trails=2", "unknown key\n  cure: did you mean 'trials'?"),
        ("samples.trials=2", "unknown key\n  cure: did you mean 'sample'?"),
        ("train.beta.x=2", "'beta' is a value, not a section"),
        ("sample=5", "this is a section of keys, not a value"),
        ("sample.trials", "an override has the form key=value"),
        ("=5", "an override has the form key=value"),
        ("sample.trials=[1", "not YAML (expected ',' or ']', but got '<stream end>')"),
        ("sample.trials=0", "input should be greater than 0 (it is 0)"),
        ("sample.top_p=1.5", "input should be less than or equal to 1 (it is 1.5)"),
        ("sample.engine=gpu", "input should be 'auto', 'vllm', 'transformers' or 'api' (it is 'gpu')"),
        ("train.shift=mean", "input should be 'ema', 'running' or 'none' (it is 'mean')"),
        ("train.lora.target_modules=5", "input should be a valid string (it is 5)"),
        ("train.lora={r: 0}", "input should be greater than 0 (it is 0)"),
        ("eval.tasks=[1]", "input should be a valid string (it is 1)"),
    ],
)
def test_a_wrong_override_is_named(file, override, message):
    # A right value in the recipe does not take the blame.
    file.write_text("sample:\n  trials: 1\n  top_p: 1\ntrain:\n  beta: 1\n  lora: {r: 1}\n")
    assert refused(file, [override]) in (f"-s {override}: {message}", f"-s {override}: {message}\n  cure: key=value")


def test_a_wrong_option_is_named():
    assert refused(None, None, {"sample.max_new_tokens": 0}) == (
        "--max-new-tokens: input should be greater than 0 (it is 0)"
    )


def test_a_wrong_value_of_the_recipe_is_named_with_its_line_beside_right_overrides(file):
    file.write_text("train:\n  beta: -1\n")
    # `train.bet` is no part of `train.beta`, though its letters are.
    message = f"{file}:2: train.beta: input should be greater than 0 (it is -1)"
    assert refused(file, ["train.bet=1", "train.learning_rate=1"], {"seed": 3}) == message


def test_a_long_wrong_value_is_cut(file):
    assert refused(None, [f"train.dtype={'x' * 500}"]).endswith(f"(it is '{'x' * 79}...)")


def test_a_key_that_is_there_twice_is_refused(file):
    file.write_text("sample:\n  trials: 1\n  top_k: 3\n  trials: 2\n")
    assert refused(file) == f"{file}:4: sample.trials: the key stands here twice\n  cure: remove one of the two"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"- a\n- b\n", "{file}: a recipe is a mapping of keys to values"),
        (b"just text", "{file}: a recipe is a mapping of keys to values"),
        (b"a: b\nc: [1,\nd: 2\n", "{file}:4: not YAML (expected ',' or ']', but got '<stream end>')"),
        (b"a: !x 1\n", "{file}:1: not YAML (could not determine a constructor for the tag '!x')"),
        (b"a: &x [*x]\n", "{file}: nested too deeply"),
        (b"a: " + b"[" * 5000, "{file}: nested too deeply"),
        (b"a: \xff\n", "{file}: this is not a text file"),
    ],
)
def test_a_file_that_is_no_recipe(file, data, message):
    file.write_bytes(data)
    assert refused(file) == message.format(file=file)


def test_a_recipe_that_is_not_there(tmp_path):
    file = tmp_path / "nowhere.yaml"
    assert refused(file) == f"{file}: there is no such recipe\n  cure: recipes/ holds some to start from"
    assert refused(tmp_path) == f"{tmp_path}: this is not a text file"


def test_suggestions():
    assert suggest("learning_rat", ["learning_rate", "beta"]) == "did you mean 'learning_rate'?"
    assert suggest("zzz", ["learning_rate", "beta"]) == "known here: learning_rate, beta"
    assert known_keys("train.lora") == ["r", "alpha", "dropout", "target_modules"]
    assert known_keys("train.beta") == known_keys("nowhere.at.all") == []


# The resolved recipe


def test_the_dump_says_where_each_value_came_from(file):
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
def test_any_text_survives_the_dump(file, value):
    recipe = Recipe(name=value)
    recipe.rectify.params = {value: [value, {value: value}], "on": {"yes": [[]]}}
    recipe._sources["name"] = "-s name=two\nlines: # x"
    file.write_text(dump(recipe), encoding="utf-8", newline="")
    assert yaml.safe_load(dump(recipe)) == recipe.model_dump(mode="json")
    assert load(file).model_dump() == recipe.model_dump()
