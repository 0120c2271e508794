"""The stand-in driver on disk: its library, compiled here, and the file that it shows."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vrampack.errors import LocalClusterError
from vrampack.localcluster.standin.state import Driver, lines

SOURCE: Final = Path(__file__).with_name("nvml.c")
LIBRARY: Final = "libnvidia-ml.so.1"


def compiler() -> str | None:
    """The C compiler of this machine, if it has one."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name)) is not None), None)


def build(folder: Path) -> Path:
    """Compiles the library into ``folder``, and gives its path. Raises LocalClusterError with the compiler's words."""
    found = compiler()
    if found is None:
        raise LocalClusterError("the stand-in driver is compiled when it is used, and there is no cc, gcc or clang")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ("-O2", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}")
    command = [found, *flags, "-o", str(folder / LIBRARY), str(SOURCE), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalClusterError(f"the stand-in driver does not compile:\n{done.stderr.strip()}")
    return folder / LIBRARY


class StandinDriver:
    """What one node's driver shows: a file that is replaced as a whole, so that no reader sees half of it."""

    def __init__(self, *, library: Path, state: Path) -> None:
        self._library = library
        self._state = state

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to take this driver for the machine's."""
        return {"LD_LIBRARY_PATH": str(self._library.parent), "STANDIN_NVML": str(self._state)}

    def show(self, driver: Driver) -> None:
        """From the next call on."""
        replace_text(self._state, lines(driver))

    def unload(self) -> None:
        """As rmmod does: every call says that no driver is loaded."""
        self._state.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a file in one step."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
