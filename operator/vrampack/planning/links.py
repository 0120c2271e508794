"""Which GPUs of a node fast links join: replicas over several GPUs go there first."""

from collections.abc import Mapping, Sequence

from vrampack.api.gpunode import GPUStatus


def link_domains(gpus: Sequence[GPUStatus]) -> Mapping[str, str]:
    """By UUID the name of its domain: all that NVLink joins, directly or by others. GPUs without links are in none."""
    reached = {gpu.uuid: set(gpu.nvlink) for gpu in gpus if gpu.nvlink}
    domain: dict[str, str] = {}
    for uuid in sorted(reached):
        ahead = [uuid]
        while ahead:
            each = ahead.pop()
            if each in reached and each not in domain:
                domain[each] = uuid
                ahead += sorted(reached[each])
    return domain
