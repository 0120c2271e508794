"""``vrampack`` as a later version of it would be, whose estimate of every model is larger. Run as a script."""

from vrampack.memory import constants
from vrampack.units import MIB

MORE = 256 * MIB
"""Bytes that the next version adds to the runtime context of each GPU."""

if __name__ == "__main__":
    vars(constants)["CUDA_CONTEXT"] += MORE  # before anything takes the constant from there
    from vrampack.cli.main import main

    main()
