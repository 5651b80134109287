"""What the shell completes: values of options, recipe keys, files; the words of bash; a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spotcli.completion import KINDS, TEMPLATES, joined, values
from spotcli.evaluation.tasks.builtin import BUILTIN
from spotcli.oracles import by_name
from spotcli.recipe_yaml import load
from spotcli.templates import catalog
from tests.conftest import ROOT
from tests.tmux import TMUX, pane


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a few files."""
    monkeypatch.chdir(tmp_path)
    for name in ("data.jsonl", "notes.txt", "recipe.yaml", "two words.jsonl", "only/one/deep.yaml", ".hidden.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


def test_names_are_those_of_the_package() -> None:
    assert values("task", "")[: len(BUILTIN)] == [*BUILTIN]
    assert values("task", "re") == ["recipe.yaml"]
    assert values("oracle", "") == [*by_name.BUILTIN]
    assert tuple(catalog.TEMPLATES) == TEMPLATES
    assert values("template", "l") == ["lora"]


def test_models_of_providers_come_from_the_table_of_litellm() -> None:
    assert "gpt-4o" in values("oracle", "gpt-4")
    assert "gemini/gemini-2.5-pro" in values("oracle", "gemini/gem")
    assert values("oracle", "text-embedding") == []


def test_files_have_the_endings_that_an_option_reads() -> None:
    assert values("rows", "") == ["data.jsonl", "model/", "only/", "two words.jsonl"]
    assert values("recipe", "r") == ["recipe.yaml"]
    assert values("recipe", "o") == ["only/one/deep.yaml"]  # the only file below the only folder
    assert values("model", "m") == ["model"]
    assert values("rows", ".h") == [".hidden.jsonl"]
    assert values("rows", "nowhere/") == []


def test_files_with_control_characters_are_not_offered(folder: Path) -> None:
    (folder / "evil\x1b]0;x\x07.jsonl").touch()
    assert values("rows", "e") == []


def test_keys_of_a_recipe_and_their_values() -> None:
    assert {"train.objective=", "train.learning_rate=", "train.lora.r=", "seed="} <= {*values("override", "")}
    assert values("override", "train.obj")[:2] == ["train.objective=", "train.objective=spot-bco"]
    assert values("override", "train.objective=d") == [
        *("train.objective=dpo", "train.objective=dpop", "train.objective=dft"),
    ]
    assert values("override", "train.bet") == ["train.beta=", "train.beta=0.1"]
    assert values("override", "rectify.cut=") == ["rectify.cut=true", "rectify.cut=false"]
    assert values("override", "train.output_d") == []  # a key that no recipe can set
    for key in values("override", ""):
        load(None, [candidate for candidate in values("override", key)[:1] if candidate[-1] != "="])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (["spot", "sample", "builtin", ":", "ar"], ["spot", "sample", "builtin:ar"]),
        (
            ["spot", "train", "r.yaml", "-s", "train.objective", "=", "d"],
            ["spot", "train", "r.yaml", "-s", "train.objective=d"],
        ),
        (["spot", "rectify", "--oracle", "="], ["spot", "rectify", "--oracle="]),
        (["spot", "eval", "", "--task"], ["spot", "eval", "", "--task"]),
    ],
)
def test_words_that_bash_splits_are_joined(raw: list[str], words: list[str]) -> None:
    assert joined(raw) == words


def completed(folder: Path, *words: str) -> list[str]:
    """What the completion function of bash gets for words as bash splits them."""
    probe = "import sys; sys.argv = ['spot']; from spotcli.cli import main; main()"
    environment = os.environ | {
        "_SPOT_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("spot", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


def test_bash_gets_what_follows_its_word_break(folder: Path) -> None:
    assert completed(folder, "train", "recipe.yaml", "-s", "train.objective", "=", "d") == ["dpo", "dpop", "dft"]
    assert completed(folder, "inspect", "two") == ["two\\ words.jsonl"]


def test_completion_imports_nothing_heavy(folder: Path) -> None:
    probe = (
        "import os, sys\n"
        "from spotcli.completion import KINDS, values\n"
        "for kind in KINDS: values(kind, 'g')\n"
        "sys.exit(str({'torch', 'litellm', 'transformers', 'pydantic', 'datasets'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == "\n"
    assert len(KINDS) == 8


@pytest.mark.skipif(TMUX is None or shutil.which("bash") is None, reason="tmux or bash is not installed")
def test_a_real_bash_completes(folder: Path) -> None:
    command = folder / "bin" / "spot"
    command.parent.mkdir()
    program = "import sys; sys.argv[0] = 'spot'; from spotcli.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "HOME": str(folder),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    with pane() as screen:
        screen.start(["bash", "--norc", "--noprofile"], folder, (100, 20), environment)
        screen.type('PS1="> "; spot --install-completion bash && source .bashrc && clear\n')
        screen.until(lambda text: text.strip() == ">")
        for typed, line in (
            ("spot sample builtin:ar", "spot sample builtin:arithmetic"),
            ("spot rectify --oracle=sym", "spot rectify --oracle=symbolic"),
            ("spot train recipe.yaml -s train.objective=re", "spot train recipe.yaml -s train.objective=reward-sft"),
            ("spot inspect two", "spot inspect two\\ words.jsonl"),
        ):
            screen.type(f"{typed}\t")
            screen.shows(f"> {line}")
            screen.press("C-u")
