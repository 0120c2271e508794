"""The stand-in driver: a double of libnvidia-ml.so.1 and of the host's /proc, for agents on machines without a GPU."""
