#!/usr/bin/env python3
"""Predict when asked over HTTP, for Grand Challenge's invoke mode; see ``python serve.py --help``."""

from model.entry_points import serve

if __name__ == "__main__":
    raise SystemExit(serve())
