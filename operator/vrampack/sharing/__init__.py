"""Sharing mechanisms: what each changes in a pod, pure."""
