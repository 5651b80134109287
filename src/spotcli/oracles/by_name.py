"""Creates an oracle by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spotcli.oracles import Oracle

if TYPE_CHECKING:
    from spotcli.recipe import RectifySection


def create(name: str, settings: RectifySection) -> Oracle:
    """The oracle called ``symbolic`` or ``human``, or a model by litellm's name, which is not looked up yet.

    Raises:
        RecipeError: settings that contradict each other.
    """
    if name == "symbolic":
        from spotcli.oracles.symbolic import SymbolicOracle

        return SymbolicOracle()
    if name == "human":
        from spotcli.oracles.human import HumanOracle

        return HumanOracle()
    from spotcli.oracles.model import ModelOracle

    return ModelOracle(name, settings)
