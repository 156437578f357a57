#!/usr/bin/env python3
"""Run the paper's claims; see ``python experiment.py --help`` and docs/experiments.md."""

from model.entry_points import run

if __name__ == "__main__":
    raise SystemExit(run("experiments.command_line"))
