"""The only I/O towards the API server."""
