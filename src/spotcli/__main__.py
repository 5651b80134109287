"""Run ``spot`` as ``python -m spotcli``."""

from spotcli.cli import main

if __name__ == "__main__":
    main()
