"""Ports for the servers of one cluster."""

import contextlib
import random
import socket
from pathlib import Path

from vrampack.errors import LocalClusterError

_LOWEST = 20000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address on which nobody listens now, each another.

    They lie below the range from which the kernel takes the ports of outgoing connections, where there is room for
    that: else a client that tries again and again while the API server is away may get that very port, connect to
    itself and keep the server from coming back on it. Somebody else may still be faster: the server then says so and
    the caller asks for other ports.

    Raises LocalClusterError when there are none.
    """
    with contextlib.ExitStack() as held:  # all of them held until the last one is found
        found: list[int] = []
        for port in random.sample(_candidates(), k=len(_candidates())):
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise LocalClusterError(f"no {count} free ports on 127.0.0.1 between {_LOWEST} and {_candidates()[-1]}")


def _candidates() -> range:
    try:
        first_outgoing = int(_RANGE.read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux: 49152 is where the range begins by RFC 6335
        first_outgoing = 49152
    return range(_LOWEST, first_outgoing if first_outgoing > _LOWEST + 1000 else 65536)
