"""Entry points of the local stack's parts that run in Python."""
