#!/usr/bin/env python3
"""Fetch the Light My Cells data set; see ``python download.py --help`` and docs/light-my-cells.md."""

from model.entry_points import run

if __name__ == "__main__":
    raise SystemExit(run("training.download"))
