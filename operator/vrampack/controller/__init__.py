"""The operator process: handlers that poke, one loop that decides and acts while it holds the Lease."""
