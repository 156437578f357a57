#!/usr/bin/env python3
"""Render simulated cells; see ``python simulate.py --help`` and docs/simulation.md."""

from model.entry_points import run

if __name__ == "__main__":
    raise SystemExit(run("simulation.command_line"))
