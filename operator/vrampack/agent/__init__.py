"""The node process: what GPUs a node has and who uses them."""
