"""Fit the networks on partially labelled pairs."""
