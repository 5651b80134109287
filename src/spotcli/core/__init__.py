"""Pure computation: losses, edits, statistics, costs, oracle prompts, and the forward pass of the trained model.

Nothing in this package opens a file, starts a process, uses the network or reads a recipe. It imports only
``spotcli.records`` and ``spotcli.errors``.
"""
