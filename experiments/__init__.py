"""The paper's claims, each a TOML file in claims/, run by ``experiment.py``: train, predict, score, draw."""
