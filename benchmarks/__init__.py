"""Measurements: what docs/ states, with the command that states it."""
