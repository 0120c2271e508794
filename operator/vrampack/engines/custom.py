"""Any server that the user brings: it gets its share in the environment and is otherwise left alone.

Such a server must size itself by ``VRAMPACK_CLAIM_BYTES``. ``VRAMPACK_UTILIZATION`` is a fraction of the whole GPU, and
where the container runtime enforces the limit, a process sees a GPU of the limit's size.
"""

from typing import Final

from vrampack.engines.base import EngineContainer, EngineInput, hub_environment, share_environment, shared_memory
from vrampack.errors import InvalidInputError

CPU: Final = 1000
"""Request in thousandths of a core; an overlay that names another one wins."""


def container(given: EngineInput, /) -> EngineContainer:
    """The user's image and arguments, unchanged.

    There are no probes: only the user knows when this server is ready, and says so in the overlay.
    Raises InvalidInputError without an image.
    """
    if given.image is None:
        raise InvalidInputError(
            field="spec.engine.image", value=given.image, allowed="a custom engine has no image of its own: name one"
        )
    return EngineContainer(
        engine="custom",
        image=given.image,
        port=given.port,
        env=share_environment() + hub_environment(given),
        args=given.args,
        shared_memory=shared_memory(given),
        cpu=CPU,
        memory=given.host_memory,
        owns_command=False,
    )
