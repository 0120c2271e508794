"""Inference engines: flags and container of each, pure."""
