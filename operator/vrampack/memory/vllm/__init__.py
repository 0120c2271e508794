"""How vLLM allots its KV cache: pages, blocks, groups, and how many of them a request takes."""
