"""Work that is counted, never timed: what was done of what may be done."""

from dataclasses import dataclass

from vrampack.packing.problem import Work

UNLIMITED = Work(rounds=1 << 40, dives=1 << 40, nodes=1 << 40)
"""For callers that stop by themselves."""


@dataclass(slots=True)
class Tally:
    """``rounds`` of pricing, ``dives`` begun, and ``nodes``, the linear programmes of dives; ``most``: of each."""

    most: Work
    rounds: int = 0
    dives: int = 0
    nodes: int = 0

    @property
    def done(self) -> Work:
        """So far."""
        return Work(rounds=self.rounds, dives=self.dives, nodes=self.nodes)

    @property
    def prices(self) -> bool:
        """Whether another round of pricing may be done."""
        return self.rounds < self.most.rounds

    @property
    def dives_on(self) -> bool:
        """Whether another dive may begin."""
        return self.dives < self.most.dives and self.nodes < self.most.nodes
