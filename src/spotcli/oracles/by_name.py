"""Creates an oracle by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spotcli import plugins
from spotcli.oracles import Oracle

if TYPE_CHECKING:
    from spotcli.recipe import RectifySection


BUILTIN = ("symbolic", "human", "policy", "policy-prompted")
"""Names that no package can take."""


def create(name: str, settings: RectifySection) -> Oracle:
    """The oracle called ``symbolic`` or ``human``, that of an installed package, or a model by litellm's name.

    A model is not looked up yet.

    Raises:
        RecipeError: settings that contradict each other.
        UserError: a package that registers the name cannot be imported, or registers no oracle.
    """
    if name in BUILTIN:
        plugins.warn_if_shadowed(plugins.ORACLES, name)
    if name == "symbolic":
        from spotcli.oracles.symbolic import SymbolicOracle

        return SymbolicOracle()
    if name == "human":
        from spotcli.oracles.human import HumanOracle

        return HumanOracle()
    if name in plugins.registered(plugins.ORACLES):
        from spotcli.oracles.plugin import PluginOracle

        return PluginOracle(name, settings)
    from spotcli.oracles.model import ModelOracle

    return ModelOracle(name, settings)
