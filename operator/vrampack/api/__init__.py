"""The four resources as pydantic models: the wire format, and nothing else."""
