"""Model folders with code, pickles, absurd files or hostile chat templates: one line with the cure, nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spotcli
from spotcli.errors import UserError
from spotcli.policies import chat_template, models
from spotcli.policies.chat_template import render

CODE = "open({marker!r}, 'w').close()\nclass Evil: pass\n"


class Payload:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def with_code(folder: Path, marker: Path) -> None:
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    parts = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    change(folder / "config.json", model_type="evil", architectures=["Evil"], auto_map=parts)


def with_tokenizer_code(folder: Path, marker: Path) -> None:
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    change(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    (folder / "tokenizer.json").unlink()


def with_pickle(name: str) -> Callable[[Path, Path], None]:
    def add(folder: Path, marker: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))

    return add


def with_header(header: bytes) -> Callable[[Path, Path], None]:
    def write(folder: Path, marker: Path) -> None:
        (folder / "model.safetensors").write_bytes(header)

    return write


def as_adapter(settings: dict[str, Any], weights: str | None = None) -> Callable[[Path, Path], None]:
    def turn(folder: Path, marker: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "config.json").unlink()
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        if weights:
            (folder / weights).write_bytes(pickle.dumps(Payload(marker)))

    return turn


HUGE = {"weight": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 1 << 62]}}
FOLDERS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "code": (with_code, "needs Python code|failed to load"),
    "tokenizer code": (with_tokenizer_code, "needs Python code|no tokenizer|failed to load"),
    "pytorch_model.bin": (with_pickle("pytorch_model.bin"), "safetensors"),
    "model.pt": (with_pickle("model.pt"), "safetensors"),
    "model.gguf": (with_pickle("model.gguf"), "safetensors"),
    "a header of 2**63 bytes": (with_header(struct.pack("<Q", 1 << 63)), "failed to load"),
    "a header that is no JSON": (with_header(struct.pack("<Q", 8) + b"[[[[[[[["), "failed to load"),
    "a huge tensor": (with_header(struct.pack("<Q", 90) + json.dumps(HUGE).encode().ljust(90)), "failed to load"),
    "no bytes": (with_header(b""), "failed to load"),
    "adapter of itself": (as_adapter({"base_model_name_or_path": "."}), "adapter itself|no tokenizer|not found"),
    "adapter of nothing": (as_adapter({"peft_type": "LORA"}), "does not name its base model"),
    "adapter.bin": (as_adapter({"base_model_name_or_path": "x"}, "adapter_model.bin"), "safetensors"),
}


def load_all(folder: Path) -> None:
    """Load what sample, train and eval load of a model, in their order."""
    models.load_configs(str(folder))
    models.load_tokenizer(str(folder))
    models.load_model(str(folder))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_is_a_users_error(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_model, folder)
    spoil, message = FOLDERS[name]
    spoil(folder, marker)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as error:
        load_all(folder)
    assert error.value.cure
    assert "\n" not in error.value.message
    assert not marker.exists()


@pytest.mark.parametrize("command", ["sample", "train", "eval"])
def test_every_stage_refuses_code_in_one_line(command: str, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    with_code(tmp_path / "model", tmp_path / "ran")
    pair = {"id": "a", "prompt": "p", "answer": "2", "rejected": "1+1 = 3", "chosen": "1+1 = 2", "change_ratio": 0.2}
    (tmp_path / "data.jsonl").write_text(json.dumps(pair) + "\n")
    (tmp_path / "problems.jsonl").write_text(json.dumps({"prompt": "p", "answer": "2"}) + "\n")
    (tmp_path / "recipe.yaml").write_text("model: ./model\n")
    options = {
        "sample": ["problems.jsonl", "--model", "./model", "--engine", "transformers"],
        "train": ["recipe.yaml", "-s", "train.data=data.jsonl"],
        "eval": ["./model", "--task", "arithmetic"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "spotcli", command, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(str(spotcli.__file__)).parents[1]), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cure: " in done.stderr
    assert not (tmp_path / "ran").exists()


TEMPLATES = {
    "endless loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
        "{% endfor %}",
        "took longer",
    ),
    "a macro without end": ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "rejects the messages"),
    "classes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "failed"),
    "globals": ("{{ raise_exception.__globals__['os'].system('id') }}", "failed"),
    "a long text": ("{{ 'x' * 3000000 }}", "added more than 1,000,000 characters"),
    "more than memory": ("{{ 'x' * 10 ** 15 }}", "failed"),
    "a syntax error": ("{% for %}", "failed"),
    "no file is read": ("{% include '/etc/passwd' %}", "rejects the messages"),
    "its own message": ("{{ raise_exception('\x1b[2J\nno system role') }}", "rejects the messages"),
    "a range without end": ("{% for a in range(10 ** 12) %}x{% endfor %}", "failed"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_chat_template_is_a_users_error(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "SECONDS", 2.0)
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    template, problem = TEMPLATES[name]
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = models.load_tokenizer(str(folder))
    with pytest.raises(UserError, match=problem) as error:
        render(tokenizer, [{"role": "user", "content": "hi"}])
    assert "\n" not in error.value.message
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert render(models.load_tokenizer(str(folder)), [{"role": "user", "content": "hi"}])


def test_a_profiler_can_follow_a_program_that_has_rendered_templates() -> None:
    """Asking CPython 3.11 to remove an exception that was never raised makes the next traced call endless."""
    code = (
        "import sys\n"
        "from spotcli.policies import chat_template\n"
        "with chat_template._clock(): pass\n"
        "sys.setprofile(lambda *event: None)\n"
        "chat_template._line(ValueError('a'))\n"
        "sys.setprofile(None)\n"
        "print('followed')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "followed\n", done.stderr
