"""The only I/O towards model hubs: facts of a model, never its weights."""
