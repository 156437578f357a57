#!/usr/bin/env python3
"""Score predictions; see ``python evaluate.py --help`` and docs/evaluation.md."""

from model.entry_points import run

if __name__ == "__main__":
    raise SystemExit(run("evaluation.command_line"))
