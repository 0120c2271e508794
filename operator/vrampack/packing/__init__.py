"""The packer: replicas onto GPUs, as a pure function of its input. It knows bytes and names, and no Kubernetes."""
