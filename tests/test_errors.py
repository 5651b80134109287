"""Errors: exit codes, text, and pickling."""

from __future__ import annotations

import pickle

import pytest

from spotcli import errors
from spotcli.errors import (
    BudgetReached,
    DataError,
    MissingExtra,
    RecipeError,
    SettingsChanged,
    SpotError,
    Unfinished,
    UserError,
)

EXIT_CODES = {
    SpotError: 1,
    UserError: 2,
    DataError: 2,
    RecipeError: 2,
    SettingsChanged: 2,
    MissingExtra: 2,
    Unfinished: 3,
    BudgetReached: 4,
}


def make(kind: type[SpotError]) -> SpotError:
    if kind is MissingExtra:
        return MissingExtra("train", "spot train")
    return kind("invalid row", where="data.jsonl:7", cure="correct it")


def test_every_error_has_its_exit_code() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SpotError)}
    assert kinds == EXIT_CODES.keys()
    assert {kind: kind.exit_code for kind in kinds} == EXIT_CODES


def test_the_tree_in_the_docstring_matches_the_classes() -> None:
    for kind, code in EXIT_CODES.items():
        (line,) = [line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line.split()]
        depth = len(line) - len(line.lstrip(" │├└─"))
        assert depth == 4 * len([base for base in kind.__mro__ if issubclass(base, SpotError)])
        if "exit" in line:
            assert f"exit {code} " in line


def test_the_text_of_an_error_has_problem_place_and_cure() -> None:
    assert str(make(DataError)) == "data.jsonl:7: invalid row\n  cure: correct it"
    assert str(SpotError("it broke")) == "it broke"
    assert str(SpotError("it broke", where="here")) == "here: it broke"
    assert str(SpotError("it broke", cure="glue")) == "it broke\n  cure: glue"


def test_the_cure_of_a_missing_extra_installs_it() -> None:
    assert str(make(MissingExtra)) == (
        "spot train requires packages that are not installed\n"
        "  cure: pip install 'surgical-post-training[train]==0.1.0.dev0'"
    )


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_an_error_can_be_pickled(kind: type[SpotError]) -> None:
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.where, again.cure) == (str(error), error.where, error.cure)
