"""Pure parts: no files, no network, no command line, no recipe."""
