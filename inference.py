#!/usr/bin/env python3
"""Predict every image of a folder; see ``python inference.py --help`` and docs/prediction.md."""

from model.entry_points import inference

if __name__ == "__main__":
    raise SystemExit(inference())
