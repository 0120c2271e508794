"""The memory estimate: bytes per GPU of one replica, term by term. Pure; usable without Kubernetes."""
