"""``python -m spotcli`` is ``spot``."""

from spotcli.cli import main

if __name__ == "__main__":
    main()
