"""Checks of `make lint` that no ready-made tool has."""
