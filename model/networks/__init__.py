"""The networks, and how to build one from its architecture."""
