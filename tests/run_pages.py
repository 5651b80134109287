"""Every command and Python block of README and the docs is executed, except those that page_rules.py lists.

    python tests/run_pages.py                         all pages: `nox -s newcomer -- pages`
    python tests/run_pages.py rectify.md run.md       some of them
    python tests/run_pages.py rectify.md --only keep  blocks with a command that matches
    python tests/run_pages.py --keep FOLDER           keep the folders; a second start uses the prepared files again

Commands are executed by bash as they are written, in the order of their page. On a tutorial they follow each other
from an empty folder. Elsewhere each block begins with a copy of one prepared folder, in which every file that the pages
name exists. Oracles and endpoints are local servers in the providers' formats (SPOT_..._BASE_URL, made-up keys);
commands that would spend money are executed with `--dry-run` first, which must send no request. Where a page shows the
output of a command, its lines must be in the real output.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import page_plugins
from tests.batch_formats import OpenAIBatches
from tests.fake_provider import FakeProvider, Step
from tests.page_commands import PAGES, ROOT, Block, Command, blocks, commands, python_blocks
from tests.page_folder import PREPARATION, problem, solution, write_inputs
from tests.page_rules import (
    ALTERNATIVES,
    CONTINUES,
    HOST,
    IN_TEXT,
    ON_ITS_OWN,
    OUTPUTS,
    SPENDS,
    SPOKEN_BY_ANTHROPIC,
    TUTORIALS,
    case_of,
    reason_not_run,
)
from tests.wire_formats import FORMATS

PATIENCE = 600
"""Seconds of one command."""
SETTINGS = {
    "SPOT_SAMPLE_LIMIT": "24",
    "SPOT_EVAL_LIMIT": "4",
    "SPOT_EVAL_TRIALS": "1",
    "SPOT_EVAL_DATA_DIR": "benchmarks",
    "SPOT_EVAL_MAX_NEW_TOKENS": "80",
    "SPOT_TRAIN_SET": "train.processes=1 train.zero=0 train.fsdp=false train.max_steps=2 train.batch_size=4",
    "SPOT_RUN_SET": "sample.limit=24 eval.limit=4 eval.drift=false train.max_steps=2",
    "SPOT_PLAN_SET": "sample.limit=24 eval.limit=4 eval.drift=false train.max_steps=2",
}
"""Smaller runs of the commands on the pages; what a command line has comes before them."""
PLUGINS = "plugins"
"""Folder of the packages that a page describes."""
CELLS = """
for place, text in {cells!r}:
    exec(compile(text, place, "exec"), globals())
"""


class Failed(AssertionError):
    """A command did not do what its page says."""


def corrections() -> dict[str, list[Step]]:
    """What an oracle replies about the prepared answers, by problem."""
    rows = [*range(1, 25), *range(101, 105)]
    texts = {problem(n)["prompt"]: f"<answer-{{fence}}>\n{solution(n)}\n</answer-{{fence}}>" for n in rows}
    return {prompt: [{"text": text}] for prompt, text in texts.items()}


class Endpoint(OpenAIBatches):
    """An endpoint that corrects between the tags of a request, and answers a bare problem without tags."""

    def next_step(self, body: dict[str, object]) -> tuple[str, Step, str]:
        tag, step, prompt = super().next_step(body)
        if "<student-" not in prompt and "text" in step:
            step = step | {"text": re.sub(r"</?answer-\{fence\}>\n?", "", step["text"])}
        return tag, step, prompt


@dataclass
class Session:
    """The servers, the prepared folder and the results of all commands."""

    folder: Path
    openai: Endpoint
    anthropic: FakeProvider
    failures: list[str] = field(default_factory=list)
    cwd: Path = Path()
    """Where the next command is executed: `cd` changes it."""
    only: str = ""
    """A pattern: other blocks are left out, except on tutorials."""
    executed: set[tuple[str, ...]] = field(default_factory=set)
    """The commands of each block; an equal block of another page is not executed again."""
    run: int = 0
    left_out: int = 0

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"

    def environment(self, text: str) -> dict[str, str]:
        """The variables of a command."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("SPOT_")}
        env |= SETTINGS | {name: value for format in FORMATS.values() for name, value in format.environment.items()}
        env |= {"PATH": f"{self.folder / 'bin'}:{env['PATH']}", "HOME": str(self.folder / "home"), "NO_COLOR": "1"}
        env |= {
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
            "COLUMNS": "100",
            "PYTHONPATH": f"{PLUGINS}:{ROOT / 'src'}",
        }
        if (name := paid(text)) and "--base-url" not in text:
            server = self.anthropic if SPOKEN_BY_ANTHROPIC.search(text) else self.openai
            env[f"SPOT_{name.upper()}_BASE_URL"] = server.base_url
        return env

    def prepare(self) -> None:
        """Make the files that the commands of the pages name."""
        spot = self.folder / "bin" / "spot"
        spot.parent.mkdir()
        spot.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m spotcli "$@"\n')
        spot.chmod(0o755)
        (self.folder / "home").mkdir()
        write_inputs(self.prepared)
        self.cwd = self.prepared
        for text in PREPARATION:
            done = self.shell(text)
            assert done.returncode == 0, f"{text}\n{done.stdout}"

    def shell(self, text: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Execute a command in bash; stdout and stderr together. The next one is executed where it ends."""
        place = self.folder / "cwd"
        process = subprocess.Popen(
            ["bash", "-c", f"{text}\nstatus=$?; pwd > {shlex.quote(str(place))}; exit $status"],
            cwd=self.cwd,
            env=self.environment(text) | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        self.cwd = Path(place.read_text(encoding="utf-8").strip())
        return subprocess.CompletedProcess(text, process.returncode, output)

    def page(self, page: Path) -> None:
        """Execute the commands and the Python blocks of a page."""
        scratch = self.folder / page.name
        tutorial = page.name in TUTORIALS
        if tutorial:
            self.renew(scratch, page, empty=True)
        for block in blocks(page):
            if block.language == "yaml" and (name := re.match(r"# ([\w-]+\.yaml)$", block.lines[0])):
                (scratch / name[1]).write_text(block.text, encoding="utf-8")
            if not (steps := commands(block)):
                continue
            texts = tuple(command.text for command in steps)
            if not tutorial and (texts in self.executed or not any(re.search(self.only, text) for text in texts)):
                continue
            self.executed.add(texts)
            if not tutorial or steps[0].text.startswith(ON_ITS_OWN):
                self.renew(scratch, page, empty=tutorial)
            self.block(steps, fresh=not tutorial)
        for text in IN_TEXT.get(page.name, ()):
            assert f"`{text}`" in page.read_text(encoding="utf-8"), text
            self.renew(scratch, page)
            self.block([Command(page.name, 0, text)], fresh=True)
        if code := python_blocks(page):
            self.renew(scratch, page, empty=True)
            self.python(code, scratch)
        shutil.rmtree(scratch, ignore_errors=True)

    def renew(self, scratch: Path, page: Path, *, empty: bool = False) -> None:
        """Begin with a copy of the prepared folder, and with the packages that the page describes.

        Args:
            empty: without the outputs of any command.
        """
        self.cwd = scratch
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(self.prepared, scratch)
        if empty:
            remove(scratch, begun())
        page_plugins.install(page, scratch / PLUGINS)

    def block(self, steps: list[Command], *, fresh: bool) -> None:
        """Execute the commands of one block.

        Args:
            fresh: whether the outputs of a command are removed before its first call.
        """
        called: set[str] = set()
        for command in steps:
            if reason := reason_not_run(command):
                self.left_out += 1
                print(f"   -    {command.place} {command.text}  ({reason})", flush=True)
                continue
            name = [*command.text.split(), ""][1]
            if fresh and not CONTINUES.search(command.text) and (name not in called or name in ALTERNATIVES):
                remove(self.cwd, OUTPUTS.get(name, ()))
            called.add(name)
            self.attempt(command)

    def attempt(self, command: Command) -> None:
        """Execute a command and note a failure."""
        self.run += 1
        since = time.monotonic()
        try:
            self.execute(command)
            mark = "ok"
        except (Failed, subprocess.TimeoutExpired) as error:
            mark = "FAILED"
            self.failures.append(f"{command.place} {command.text}\n{error}")
        print(f"{time.monotonic() - since:6.1f} {mark} {command.place} {command.text}", flush=True)
        if mark != "ok":
            print(self.failures[-1], flush=True)

    def execute(self, command: Command) -> None:
        """Execute a command, with ``--dry-run`` before if it spends money.

        Raises:
            Failed: another exit code, a traceback, another output, or a request of a dry run.
        """
        case, text = case_of(command), command.text.replace(HOST, self.openai.base_url)
        env = {name: value.format(openai=self.openai.base_url) for name, value in case.env.items()}
        if case.before:
            expect(0, self.shell(case.before, env))
        if SPENDS.match(text) and "--dry-run" not in text:
            sent = len(self.openai.requests) + len(self.anthropic.requests)
            expect(0, self.shell(f"{text} --dry-run", env))
            if sent != len(self.openai.requests) + len(self.anthropic.requests):
                raise Failed("--dry-run sent a request")
        done = self.shell(text, env)
        if case.after:
            expect(0, self.shell(case.after))
        expect(case.code, done)
        if not case.output:
            return
        if missing := command.missing_from(done.stdout):
            raise Failed("the page shows lines that are not in the output:\n" + "\n".join(missing) + f"\n{done.stdout}")

    def python(self, code: list[Block], scratch: Path) -> None:
        """Execute the Python blocks of a page in one process, as the cells of a notebook."""
        cells = [(f"{block.page}:{block.line}", block.text) for block in code]
        (scratch / "cells.py").write_text(CELLS.format(cells=cells), encoding="utf-8")
        self.attempt(Command(code[0].page, code[0].line, "python cells.py"))


def paid(text: str) -> str:
    """The command that asks a provider's model: rectify, sample or eval; empty if none is asked."""
    if SPENDS.match(text):
        return "rectify"
    match = re.match(r"spot (sample|eval) .*(openai|anthropic)/", text)
    return match[1] if match else ""


def expect(code: int, done: subprocess.CompletedProcess[str]) -> None:
    """Check how a command ended.

    Raises:
        Failed: another exit code, or a traceback.
    """
    if done.returncode != code or "Traceback" in done.stdout:
        raise Failed(f"exit code {done.returncode}, expected {code}\n{done.stdout[-3000:]}")


def begun() -> tuple[str, ...]:
    """The outputs of all commands, which a tutorial begins without."""
    return tuple(pattern for patterns in OUTPUTS.values() for pattern in patterns)


def remove(folder: Path, patterns: tuple[str, ...]) -> None:
    for path in {path for pattern in patterns for path in folder.glob(pattern)}:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="the name of a page, such as rectify.md")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only blocks with a command that matches")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="use this folder and keep it")
    options = parser.parse_args()
    pages = [page for page in PAGES if page.name in options.pages or not options.pages]
    with (
        tempfile.TemporaryDirectory(prefix="spot-pages-") as name,
        Endpoint(corrections(), wire="openai") as openai,
        FakeProvider(corrections(), wire="anthropic") as anthropic,
    ):
        folder = (options.keep or Path(name)).absolute()
        session = Session(folder, openai, anthropic, only=options.only)
        if not session.prepared.exists():
            folder.mkdir(exist_ok=True)
            session.prepare()
        for page in pages:
            print(f"── {page.name}", flush=True)
            session.page(page)
    print(f"{session.run} executed, {session.left_out} left out, {len(session.failures)} failed")
    sys.exit(1 if session.failures else 0)


if __name__ == "__main__":
    main()
