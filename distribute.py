#!/usr/bin/env python3
"""Predict every image of a folder by several workers; see ``python distribute.py --help`` and docs/cluster.md."""

from model.entry_points import distribute

if __name__ == "__main__":
    raise SystemExit(distribute())
