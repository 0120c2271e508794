"""The auditor merges its watches by resourceVersion."""

from tests.integration.audit_ledger import Change, Kind
from tests.integration.auditor import Merger


class TestMerger:
    """Changes of several watches in the order of their versions."""

    def change(self, kind: Kind, version: int, seen: float = 0.0) -> Change:
        return Change(kind=kind, version=version, object={}, seen=seen)

    def test_a_change_waits_for_the_other_watches(self) -> None:
        merger = Merger((Kind.POD, Kind.GPU_NODE), hold=1)
        merger.push(self.change(Kind.POD, 5))
        assert merger.due(now=0.5) == []
        merger.push(self.change(Kind.GPU_NODE, 4))
        assert [change.version for change in merger.due(now=0.5)] == [4]
        merger.advance(Kind.GPU_NODE, 9)
        assert [change.version for change in merger.due(now=0.5)] == [5]
        assert merger.late == 0

    def test_but_not_for_ever(self) -> None:
        merger = Merger((Kind.POD, Kind.GPU_NODE), hold=1)
        merger.push(self.change(Kind.POD, 5, seen=0.0))
        merger.push(self.change(Kind.POD, 3, seen=0.9))
        assert [change.version for change in merger.due(now=1.0)] == [3, 5]
        merger.push(self.change(Kind.GPU_NODE, 4, seen=1.1))
        assert [change.version for change in merger.due(now=1.2)] == [4]
        assert merger.late == 1
