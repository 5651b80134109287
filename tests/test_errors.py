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
    return kind("the row is broken", where="data.jsonl:7", cure="mend it")


def test_every_error_has_its_exit_code():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SpotError)}
    assert kinds == EXIT_CODES.keys()
    assert {kind: kind.exit_code for kind in kinds} == EXIT_CODES


def test_the_tree_in_the_docstring_is_the_tree():
    for kind, code in EXIT_CODES.items():
        (line,) = [line for line in errors.__doc__.splitlines() if kind.__name__ in line.split()]
        depth = len(line) - len(line.lstrip(" │├└─"))
        assert depth == 4 * len([base for base in kind.__mro__ if issubclass(base, SpotError)])
        if "exit" in line:
            assert f"exit {code} " in line


def test_an_error_says_what_where_and_the_cure():
    assert str(make(DataError)) == "data.jsonl:7: the row is broken\n  cure: mend it"
    assert str(SpotError("it broke")) == "it broke"
    assert str(SpotError("it broke", where="here")) == "here: it broke"
    assert str(SpotError("it broke", cure="glue")) == "it broke\n  cure: glue"


def test_a_missing_extra_names_the_command_that_installs_it():
    assert str(make(MissingExtra)) == (
        "spot train needs packages that are not installed\n  cure: pip install 'spotcli[train]==0.1.0.dev0'"
    )


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_an_error_survives_the_way_between_two_processes(kind):
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.where, again.cure) == (str(error), error.where, error.cure)
