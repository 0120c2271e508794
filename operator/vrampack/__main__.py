"""``python -m vrampack``: as the command ``vrampack``."""

from vrampack.cli.main import main

main()
