"""vrampack: serves language models on shared GPUs, byte by byte."""

__version__ = "0.1.0"
