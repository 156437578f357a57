#!/usr/bin/env python3
"""Train a network; see ``python train.py --help`` and docs/training.md."""

from model.entry_points import run

if __name__ == "__main__":
    raise SystemExit(run("training.command_line"))
