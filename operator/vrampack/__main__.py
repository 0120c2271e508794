"""``python -m vrampack``: as the command ``vrampack``."""

from vrampack.cli.main import main

if __name__ == "__main__":  # a process that it starts imports this module, too
    main()
