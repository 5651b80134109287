"""``spot init``: every template, the questions, the hardware, and what is refused, in this process."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from spotcli.cli import app
from spotcli.core.costs import Setup, Shape, Work, memory
from spotcli.errors import DataError, UserError
from spotcli.recipe_yaml import load
from spotcli.templates import hardware as hardware_module
from spotcli.templates.answers import Answers, Wishes, answers_of
from spotcli.templates.catalog import DAPO, QWEN3, SMOLLM2, TEMPLATES
from spotcli.templates.hardware import Hardware, adapter_memory, billions_of, detect, full_memory, training_lines
from spotcli.templates.writing import recipe_text
from tests.conftest import write_rows
from tests.test_reference import problems as schema_problems
from tests.tmux import TMUX, pane


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, on a machine without GPUs and keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    return tmp_path


def init(*arguments: str, **variables: str) -> Any:
    return CliRunner().invoke(app, ["init", *arguments], env={"COLUMNS": "300", **variables})


def written(*arguments: str, file: str = "recipe.yaml") -> Any:
    """The recipe that a command writes."""
    done = init(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return load(Path(file))


def answers(name: str, **changes: Any) -> Answers:
    template = TEMPLATES[name]
    values = {
        "model": template.model,
        "problems": template.problems,
        "oracle": template.oracle,
        "tasks": template.tasks,
        "base_url": None,
        "hardware": template.hardware or Hardware(2, 80),
    }
    return Answers(template=template, **(values | changes))


# Templates


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_a_recipe_and_agrees_with_the_schema(name: str, folder: Path) -> None:
    text = recipe_text(answers(name), folder / "my run.yaml", oracle_key="X_API_KEY", model_key="Y_API_KEY")
    path = folder / "my run.yaml"
    path.write_text(text)
    recipe = load(path)
    assert schema_problems(text) == []
    assert recipe.name == "my-run"
    assert "'" in text.partition("\nname:")[0], "commands quote a path with a space"
    # Each comment is one line, and keys that are commented out are keys of the recipe.
    off = [line.strip().removeprefix("# ") for line in text.splitlines() if line.startswith("  # ") and ": " in line]
    for line in off:
        key, _, rest = line.partition(": ")
        if key.isidentifier() and key.islower():
            section = "rectify" if key in ("max_cost", "tokenizer") else "sample"
            value = rest.partition("#")[0].strip()
            assert load(path, [f"{section}.{key}={value}"])


def test_the_values_of_the_templates_are_those_of_the_recipes(folder: Path) -> None:
    repository = Path(__file__).parent.parent.parent / "recipes"
    for template, recipe in (("demo", "smollm2-135m"), ("full", "qwen3-8b"), ("reproduce", "reproduce-qwen3-8b")):
        text = recipe_text(answers(template), Path("r.yaml"))
        (folder / "r.yaml").write_text(text)
        ours, theirs = load(folder / "r.yaml"), load(repository / f"{recipe}.yaml")
        for key in ("sample", "rectify", "eval"):
            kept = {"output", "problems"} if template == "reproduce" else {"output"}
            assert getattr(ours, key).model_dump(exclude=kept) == getattr(theirs, key).model_dump(exclude=kept), (
                template
            )
        differing = {
            name
            for name, value in theirs.train.model_dump().items()
            if name in ours.train.model_dump() and ours.train.model_dump()[name] != value
        }
        assert differing == set()


def test_the_list_has_one_line_per_template() -> None:
    lines = init("--list").stdout.strip().splitlines()[1:]
    assert [line.split()[0] for line in lines if line.strip()] == [*TEMPLATES]
    assert json.loads(init("--list", "--json").stdout)["demo"] == TEMPLATES["demo"].summary
    assert {*TEMPLATES} == {"demo", "lora", "full", "api", "own-problems", "reproduce"}


def test_an_unknown_template_is_refused_with_the_nearest_name() -> None:
    assert "did you mean 'lora'?" in str(init("--template", "lorra").exception)


# What is written


def test_the_defaults_without_a_gpu_are_the_demo(folder: Path) -> None:
    done = init("--yes")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1:] == ["  spot run recipe.yaml"]
    recipe = load(Path("recipe.yaml"))
    assert (recipe.model, recipe.sample.problems, recipe.rectify.oracle) == (SMOLLM2, "builtin:arithmetic", "symbolic")
    first = (folder / "recipe.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=recipe.schema.json"
    schema = (folder / "recipe.schema.json").read_text()
    assert schema == init("--schema").stdout
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.schema.json", "recipe.yaml"]


def test_a_demo_recipe_runs(folder: Path, tiny_model: Path) -> None:
    from spotcli.stages.sample import sample

    recipe = written("--template", "demo", "--model", str(tiny_model))
    recipe.sample.limit, recipe.sample.max_new_tokens = 2, 4
    assert sample(recipe).answers == 2


def test_what_is_given_is_in_the_recipe(folder: Path) -> None:
    write_rows(folder / "mine.jsonl", [{"prompt": "1 + 1", "answer": "2"}])
    recipe = written(
        *("sub/r.yaml", "--model", "org/My-7B", "--problems", "mine.jsonl", "--oracle", "human"),
        *("--gpus", "2", "--gpu-memory", "80", "--task", "aime24", "--task", "connect4"),
        file="sub/r.yaml",
    )
    assert (recipe.name, recipe.model, recipe.sample.problems) == ("r", "org/My-7B", "mine.jsonl")
    assert (recipe.rectify.oracle, recipe.eval.tasks) == ("human", ["aime24", "connect4"])
    assert (recipe.train.processes, recipe.train.fsdp, recipe.train.lora) == (2, True, None)


def test_variables_answer_too(folder: Path) -> None:
    done = init("--yes", SPOT_INIT_MODEL=SMOLLM2, SPOT_INIT_TASK="arithmetic connect4", SPOT_INIT_JSON="1")
    assert json.loads(done.stdout)["template"] == "demo"
    assert load(Path("recipe.yaml")).eval.tasks == ["arithmetic", "connect4"]


@pytest.mark.parametrize(
    "value", ["a: b # c", "x\n- y", "'", '"', "{{ 7 * 7 }}", "{% raw %}", "#", "é\u202e", "!x", "null"]
)
def test_any_text_is_a_value_and_never_code(folder: Path, value: str) -> None:
    text = recipe_text(
        answers("own-problems", model=value, problems=value, oracle=value, tasks=(value,)), Path("r.yaml")
    )
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    recipe = load(folder / "r.yaml")
    assert [recipe.model, recipe.sample.problems, recipe.rectify.oracle, *recipe.eval.tasks] == [value] * 4
    assert "\u202e" not in text.partition("\nname:")[0]


# What is refused, and what is warned about


def test_an_existing_file_is_kept_unless_forced(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("seed: 5\n")
    done = init("--yes")
    assert isinstance(done.exception, UserError)
    assert "--force" in str(done.exception)
    assert (folder / "recipe.yaml").read_text() == "seed: 5\n"
    assert written("--yes", "--force").model == SMOLLM2


def test_another_file_with_the_name_of_the_schema_is_kept(folder: Path) -> None:
    (folder / "recipe.schema.json").write_text('{"title": "mine"}')
    done = init("--yes")
    assert "another file has this name" in done.stderr
    assert (folder / "recipe.schema.json").read_text() == '{"title": "mine"}'
    assert "yaml-language-server" not in (folder / "recipe.yaml").read_text()


def test_without_a_terminal_and_without_answers_it_refuses(folder: Path) -> None:
    done = init()
    assert isinstance(done.exception, UserError)
    assert "--yes" in str(done.exception)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "builtin:gpt"), f"available: {SMOLLM2}"),
        (("--problems", "builtin:algebra"), "unknown built-in problem set 'builtin:algebra'"),
        (("--task", "arithmetik"), "did you mean 'arithmetic'?"),
        (("--oracle", "nobody/nothing"), "unknown model 'nobody/nothing'"),
        (("--problems", "bad.jsonl"), "bad.jsonl:1"),
    ],
)
def test_what_never_works_is_refused_and_nothing_is_written(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_rows(folder / "bad.jsonl", [{"text": "no problem"}])
    done = init("--yes", *arguments)
    assert isinstance(done.exception, UserError | DataError)
    assert message in str(done.exception)
    assert [path.name for path in folder.iterdir()] == ["bad.jsonl"]


def test_what_is_missing_now_is_a_warning_with_its_cure(folder: Path) -> None:
    write_rows(folder / "problems2.jsonl", [{"prompt": "1 + 1"}])
    done = init(
        *("--model", "./nowhere/model-7b", "--problems", "problems1.jsonl", "--oracle", "gpt-4o", "--gpus", "1"),
        "--json",
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert "did you mean 'problems2.jsonl'?" in " ".join(summary["warnings"])
    assert "./nowhere/model-7b: model folder not found" in summary["warnings"]
    assert any("OPENAI_API_KEY" in line for line in summary["warnings"])
    assert summary["next"] == ["export OPENAI_API_KEY=...", "spot run recipe.yaml"]
    assert "OPENAI_API_KEY" in (folder / "recipe.yaml").read_text()
    again = init("--yes", "--force", "--model", SMOLLM2, "--problems", "problems2.jsonl", "--oracle", "symbolic")
    assert "no reference answer" in again.stderr


def test_a_key_in_the_environment_chooses_the_oracle_and_is_never_written(folder: Path) -> None:
    write_rows(folder / "problems.jsonl", [{"prompt": "1 + 1", "answer": "2"}])
    done = init("--yes", OPENAI_API_KEY="sk-never-written-0123456789")
    assert done.exit_code == 0, done.output
    assert load(Path("recipe.yaml")).rectify.oracle == "gpt-4o"
    everything = done.output + "".join(path.read_text() for path in folder.iterdir())
    assert "never-written" not in everything
    assert "reads OPENAI_API_KEY" in everything


def test_an_endpoint_answers_where_no_gpu_is(folder: Path) -> None:
    recipe = written("--model", QWEN3, "--problems", DAPO, "--oracle", "human")
    assert (recipe.sample.engine, recipe.sample.base_url) == ("api", "http://localhost:8000/v1")
    recipe = written("--model", QWEN3, "--oracle", "human", "--base-url", "http://h:1/v1", "--force")
    assert recipe.sample.base_url == "http://h:1/v1"
    recipe = written("--template", "api", "--oracle", "human", "--force")
    assert recipe.sample.base_url is None


# Hardware


QWEN3_8B = Shape(
    parameters=8_190_735_360, body=6_945_767_424, layers=36, hidden=4096, width=4096, key_width=1024, mlp=12288,
    vocabulary=151_936, head_norms=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("gpus", "sharding", "adapters", "tokens"),
    [(8, "zero2", 0, 8192), (2, "fsdp", 0, 8192), (1, "none", 43_646_976, 4096)],
)
def test_the_estimates_agree_with_the_cost_formulas(gpus: int, sharding: Any, adapters: int, tokens: int) -> None:
    from dataclasses import replace

    shape = replace(QWEN3_8B, adapters=adapters)
    low = sharding == "zero2" or bool(adapters)
    setup = Setup(
        ranks=gpus, sharding=sharding, checkpointing=True, weight_bytes=2 if low else 4, autocast=sharding != "zero2"
    )
    exact = sum(memory(shape, Work(tokens, tokens - 512, tokens * tokens // 2), setup).values())
    estimate = adapter_memory(8) if adapters else full_memory(8, gpus, sharding)
    assert 0.8 < estimate / exact < 1.25


@pytest.mark.parametrize(
    ("hardware", "billions", "expected"),
    [
        (Hardware(8, 80), 8.0, {"zero": "2", "processes": "8", "batch_size": "32"}),
        (Hardware(2, 80), 8.0, {"fsdp": "true", "processes": "2"}),
        (Hardware(6, 80), 8.0, {"zero": "2", "batch_size": "36"}),
        (Hardware(1, 141), 4.0, {"lora": "null", "learning_rate": "1e-6"}),
        (Hardware(1, 24), 8.0, {"lora": "{r: 16, alpha: 32, target_modules: all-linear}", "learning_rate": "1e-5"}),
        (Hardware(1, 16), 8.0, {"quantize": "nf4"}),
        (Hardware(1), 8.0, {"lora": "{r: 16, alpha: 32, target_modules: all-linear}"}),
        (Hardware(4, 80), None, {"processes": "4", "lora": "{r: 16, alpha: 32, target_modules: all-linear}"}),
        (Hardware(), 0.135, {"per_device_train_batch_size": "16"}),
    ],
)
def test_the_hardware_chooses_how_to_train(
    hardware: Hardware, billions: float | None, expected: dict[str, str]
) -> None:
    lines = training_lines(hardware, billions)
    values = {line.key: line.value for line in lines}
    assert expected.items() <= values.items()
    assert len(values) == len(lines)
    assert all(line.reason for line in lines)
    assert ("quantize" in values) == ("quantize" in expected)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen3-8B", 8.0),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.0),
        ("builtin:smollm2-135m", 0.135),
        ("Qwen/Qwen3-30B-A3B", 30.0),
        ("mistralai/Mixtral-8x7B-v0.1", 56.0),
        ("Qwen/Qwen2.5-0.5B", 0.5),
        ("openai/gpt-4o", None),
        ("org/my-model", None),
    ],
)
def test_the_size_of_a_model_is_in_its_name(model: str, billions: float | None) -> None:
    assert billions_of(model) == billions


def test_the_size_of_a_local_model_is_that_of_its_weights(tiny_model: Path) -> None:
    billions = billions_of(str(tiny_model))
    assert billions is not None
    assert 0 < billions < 0.01


def test_gpus_are_read_from_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase \"$1\" in *uuid*) printf '0, GPU-a, 81559\\n1, GPU-b, 81559\\n2, GPU-c, 24564\\n';; "
        "*) printf '0\\n1\\n2\\n';; esac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert (detect().gpus, round(detect().memory)) == (3, 24)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert (detect().gpus, round(detect().memory)) == (2, 80)
    monkeypatch.setattr(hardware_module, "find_spec", lambda name: None)
    recipe = written("--yes", "--oracle", "human")
    assert (recipe.sample.engine, recipe.train.processes, recipe.train.fsdp) == ("transformers", 2, True)
    assert "vLLM is not installed here" in (folder / "recipe.yaml").read_text()


def test_init_imports_neither_torch_nor_litellm(folder: Path) -> None:
    import subprocess

    probe = (
        "import sys; sys.argv = ['spot', 'init', '--yes']\n"
        "from spotcli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(str({'torch', 'litellm', 'transformers'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == "\n"
    assert (folder / "recipe.yaml").exists()


@pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
def test_the_questions_at_a_terminal(folder: Path) -> None:
    write_rows(folder / "problems.jsonl", [{"prompt": "1 + 1", "answer": "2"}])
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "spotcli", "init"]
    with pane() as screen:
        screen.start(command, folder, (100, 30), environment | {"CUDA_VISIBLE_DEVICES": ""})
        screen.shows("GPUs (seen: no GPU) [0]:")
        screen.type("none\n")
        screen.shows("A whole number is required. GPUs (seen: no GPU) [0]:")
        screen.type("\n")
        screen.shows("Model", "[builtin:smollm2-135m]:")
        screen.type("\n")
        screen.shows("Problems", "[problems.jsonl]:")
        screen.type("builtin:arithmetic\n")
        screen.shows("Oracle", "[symbolic]:")
        screen.type("\n")
        screen.shows("Tasks", "[arithmetic]:")
        screen.type("arithmetic connect4\n")
        screen.shows("recipe.yaml written (template demo, no GPU)", "spot run recipe.yaml")
        assert load(folder / "recipe.yaml").eval.tasks == ["arithmetic", "connect4"]
        screen.type("clear\n")
        screen.until(lambda text: "GPUs" not in text)
        screen.type(f"{shlex.join([*command, 'other.yaml'])}; echo rc=$?\n")
        screen.shows("GPUs (seen: no GPU) [0]:")
        screen.press("C-c")
        screen.shows("interrupted", "rc=3")
    assert not (folder / "other.yaml").exists()


def test_the_memory_of_gpus_that_are_not_seen_is_asked_for() -> None:
    asked: list[str] = []
    given = {"GPUs": "2", "Memory": "80", "Model": QWEN3}

    def ask(question: str, default: str) -> str:
        asked.append(question.split()[0])
        return given.get(asked[-1], default)

    result = answers_of(Wishes(), ask, lambda _name: False)
    assert asked == ["GPUs", "Memory", "Model", "Problems", "Oracle", "Tasks"]
    assert (result.template.name, result.hardware) == ("full", Hardware(2, 80, assumed=True))


def test_yaml_of_the_templates_is_plain(folder: Path) -> None:
    for name in TEMPLATES:
        assert isinstance(yaml.safe_load(recipe_text(answers(name), Path("r.yaml"))), dict)
