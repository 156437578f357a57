"""The networks: what they are made of, and how to build one from its description."""
