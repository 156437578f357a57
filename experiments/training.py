"""Train the networks of a claim by ``train.py``, each in a process of its own; those that were stopped go on."""

import logging
import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tomli_w

from experiments.definitions import Options, Scale, read_networks
from experiments.project_commands import ROOT
from model.errors import UserError
from model.files import write_text

log = logging.getLogger(__name__)

FINISHED = "finished"
"""An empty file in the folder of a run that came to its end."""


def options_of(network: str, seed: int, scale: Scale, runs: Path) -> dict[str, Any]:
    """Return the options of one training: the scale's, with those of the network over them."""
    own: Options = read_networks()[network]
    options: dict[str, Any] = {
        **scale.training,
        "seed": seed,
        "threads": scale.threads,
        "output": str(run_folder(runs, network, seed)),
        "lambda_gan": 1.0 if own["recipe"] == "pix2pix" else 0.0,
        **own,
    }
    for name, by_recipe in (("width", scale.width), ("discriminator_width", scale.discriminator_width)):
        if own["recipe"] in by_recipe:
            options[name] = by_recipe[own["recipe"]]
    if "init" in own:
        options["init"] = str(checkpoint_of(runs, own["init"], seed))
    return options


def run_folder(runs: Path, network: str, seed: int) -> Path:
    """Folder of one training."""
    return runs / f"{network}-seed{seed}"


def checkpoint_of(runs: Path, network: str, seed: int) -> Path:
    """Return the checkpoint that is scored: the best one where fields were held out, else the last."""
    best = run_folder(runs, network, seed) / "best.safetensors"
    return best if best.is_file() else best.with_name("last.safetensors")


def train(networks: Collection[str], seed: int, scale: Scale, data: Path, runs: Path, jobs: int) -> None:
    """Train each network with a seed, unless that was done; `jobs` at once. Raises UserError where one fails."""
    starts = {name: options["init"] for name, options in read_networks().items() if "init" in options}
    needed = dict.fromkeys([*networks, *(starts[name] for name in networks if name in starts)])
    trainings: dict[str, Future[None]] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        # Those that others start from are begun first: who waits for one waits for what is under way.
        for name in sorted(needed, key=starts.__contains__):
            before = trainings[starts[name]] if name in starts else None
            trainings[name] = pool.submit(_train_one, name, seed, scale, data, runs, before)
        for training in trainings.values():
            training.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _train_one(network: str, seed: int, scale: Scale, data: Path, runs: Path, before: "Future[None] | None") -> None:
    folder = run_folder(runs, network, seed)
    if (folder / FINISHED).is_file():
        return
    if before is not None:
        before.result()
    command = [sys.executable, str(ROOT / "train.py")]
    if (folder / "state.pt").is_file():
        command += ["--resume", "--output", str(folder)]
    else:
        config = runs / f"{folder.name}.toml"
        write_text(config, tomli_w.dumps({**options_of(network, seed, scale, runs), "data": [str(data)]}))
        command += ["--config", str(config)]
    log.info("%s, seed %d: training, log in %s", network, seed, folder.with_suffix(".log"))
    with folder.with_suffix(".log").open("a", encoding="utf-8") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise UserError(f"{folder}: its training ended with exit code {code}, see {folder.with_suffix('.log')}.")
    (folder / FINISHED).touch()
