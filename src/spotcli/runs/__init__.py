"""The folder of a whole run: how far it is, and its page."""
