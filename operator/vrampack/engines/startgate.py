"""One engine after the other on a GPU, also when a container starts again: the engine's command waits for its turn.

A first start waits at the scheduling gate. A container that crashed starts again without any gate, and init containers
do not run again; so a small script stands before the engine's own command and asks the node's agent
(`vrampack.agent.startgate`), over HTTP at the node's address::

    GET http://NODE:PORT/start/POD_UID?since=SECONDS    200: start   409: another engine starts, ask again

It needs a POSIX shell, and curl or python3, which the images of all known engines have. An agent that is away holds
nobody up for long, and nobody waits longer than the limit: sizes are absolute, so the worst of a start beside another
one is that an engine refuses to start, and is started again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vrampack.engines.base import EngineContainer, Fragment, Probes, literal

PORT: Final = "VRAMPACK_START_PORT"
LIMIT: Final = "VRAMPACK_START_SECONDS"
HOST: Final = "VRAMPACK_HOST_IP"
POD: Final = "VRAMPACK_POD_UID"
ALONE_SECONDS: Final = 20
"""Without an answer for so long, there is no agent to ask."""

_NAME: Final = "vrampack-start"
_ASKED: Final = r"""
host=$VRAMPACK_HOST_IP
case $host in *:*) host="[$host]" ;; esac
since=$(date +%s)
url="http://$host:$VRAMPACK_START_PORT/start/$VRAMPACK_POD_UID?since=$since"
code_of() {
  if command -v curl >/dev/null 2>&1; then
    curl -s -o /dev/null -m 5 -w '%{http_code}' "$@"
  elif command -v python3 >/dev/null 2>&1; then
    python3 - "$@" <<'PYTHON'
import sys, urllib.error, urllib.request
post = "-X" in sys.argv
try:
    request = urllib.request.Request(sys.argv[-1], data=b"" if post else None)
    print(urllib.request.urlopen(request, timeout=5).status, end="")
except urllib.error.HTTPError as error:
    print(error.code, end="")
except OSError:
    print("000", end="")
PYTHON
  else
    echo none
  fi
}
turn() {
  heard=$since
  while :; do
    code=$(code_of "$url")
    now=$(date +%s)
    case $code in
      200) return ;;
      none) echo "vrampack: the image has neither curl nor python3, so the engine starts" >&2; return ;;
      409) heard=$now ;;
      *) if [ $((now - heard)) -ge ALONE ]; then
           echo "vrampack: no agent answers at $host, so the engine starts" >&2; return
         fi ;;
    esac
    if [ $((now - since)) -ge "$VRAMPACK_START_SECONDS" ]; then
      echo "vrampack: another engine starts for longer than $VRAMPACK_START_SECONDS s, so this one starts too" >&2
      return
    fi
    sleep 1
  done
}
""".replace("ALONE", str(ALONE_SECONDS))
_BEFORE: Final = f"""{_ASKED}turn
exec "$@"
"""
_BESIDE: Final = (
    _ASKED
    + """(
  turn
  tries=0
  until [ "$(code_of -X POST http://127.0.0.1:GATE/gate/activate)" = 200 ]; do
    tries=$((tries + 1))
    if [ $tries -ge "$VRAMPACK_START_SECONDS" ]; then exit; fi
    sleep 1
  done
) &
exec "$@" --gated-launch-port=GATE
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGate:
    """Where the agent answers, and how long an engine waits for its turn."""

    port: int
    seconds: int = 1800


def environment(gate: StartGate) -> tuple[Fragment, ...]:
    """What the script reads."""
    return (
        _field(HOST, "status.hostIP"),
        _field(POD, "metadata.uid"),
        literal(PORT, str(gate.port)),
        literal(LIMIT, str(gate.seconds)),
    )


def command(known: Sequence[str], *, own_gate: int | None = None) -> list[str]:
    """The engine's command with the script before it.

    ``own_gate``: the port of a gate that the engine has itself, after its imports and before its first large
    allocation; then it starts at once, and the script opens that.
    """
    script = _BEFORE if own_gate is None else _BESIDE.replace("GATE", str(own_gate))
    return ["/bin/sh", "-c", script, _NAME, *known]


def waiting(engine: EngineContainer, gate: StartGate) -> EngineContainer:
    """The container with what the script reads, and a startup probe that allows for the wait."""
    startup = engine.probes.startup
    if startup is not None:
        more = -(-gate.seconds // startup["periodSeconds"])
        startup = startup | {"failureThreshold": startup["failureThreshold"] + more}
    probes = Probes(startup=startup, readiness=engine.probes.readiness, liveness=engine.probes.liveness)
    return replace(engine, env=(*environment(gate), *engine.env), probes=probes)


def _field(name: str, path: str) -> Fragment:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
