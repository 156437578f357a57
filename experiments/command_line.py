"""Run claims of the paper: train the networks that a claim compares, predict, score, and say whether it holds.

Trainings, predictions and scores that are there already are used again, so that an interrupted run goes on. Results are
written after each seed, beside those of the seeds before. Exit
code: 0 all claims were run, whatever came out; 1 a training failed; 2 nothing could be begun; 130 interrupted.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from experiments.data import Data, prepare
from experiments.definitions import Claim, Scale, claim_names, read_claim, read_scale
from experiments.report import draw, judge, table, write_summary
from experiments.results import add_seed
from experiments.scoring import score
from experiments.training import train
from model.commands import (
    DONE,
    INTERRUPTED,
    NOT_BEGUN,
    SOME_FAILED,
    log_to_standard_streams,
    one_sentence,
    whole_number,
)
from model.errors import UserError
from training.exclusive import one_at_a_time
from training.scan import scan

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    log_to_standard_streams("experiments")
    with ExitStack() as held:
        return run(parse(arguments), held)


def run(options: argparse.Namespace, held: ExitStack) -> int:
    """Run the claims; keeps other commands out of the folder while `held` is open. Returns the exit code."""
    try:
        scale = read_scale(options.scale)
        claims = {name: read_claim(name) for name in (claim_names() if options.claims == ["all"] else options.claims)}
        runs = options.output / options.scale
        held.enter_context(one_at_a_time(runs, "experiment"))
        data = find_data(scale, runs, options)
        if any(claim.planes == "focus" for claim in claims.values()) and not (data.focus / "focus.csv").is_file():
            raise UserError(f"{data.focus}: has no focus.csv, expected one that states each field's plane in focus.")
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    except KeyboardInterrupt:
        log.error("Interrupted.")
        return INTERRUPTED
    try:
        networks = [name for claim in claims.values() for method in claim.methods for name in method.used]
        for seed in options.seeds or scale.seeds:
            train(networks, seed, scale, data.training, runs, options.jobs)
            for name, claim in claims.items():
                report(name, claim, seed, data, runs, options)
    except UserError as error:
        log.error(one_sentence(error))
        return SOME_FAILED
    except KeyboardInterrupt:
        log.error("Interrupted. The same command goes on.")
        return INTERRUPTED
    return DONE


def find_data(scale: Scale, runs: Path, options: argparse.Namespace) -> Data:
    """Simulate the data of the scale, or take the folders that are given."""
    if scale.simulation is not None:
        return prepare(scale.simulation, runs / "data", options.jobs)
    if options.data is None or options.test is None:
        raise UserError(f"--scale {options.scale} is given without --data and --test, expected folders of real data.")
    for folder in (options.data, options.test):
        if not scan([folder]).fields:  # said before a training of hours, not after it
            raise UserError(f"{folder}: found no image with a label, expected the challenge's layout.")
    return Data(options.data, options.test, options.test)


def report(name: str, claim: Claim, seed: int, data: Data, runs: Path, options: argparse.Namespace) -> None:
    """Score the methods of a claim, write that with the figure, and log what the seeds that are there say together."""
    planes = data.focus if claim.planes == "focus" else data.test
    found = {method.name: score(claim, method, seed, planes, runs, options.device) for method in claim.methods}
    results = runs / "results"
    scores = add_seed(results / f"{name}.json", options.scale, seed, found)
    log.info("\n%s (%s)\n\n%s\n", claim.claim, claim.source, table(claim, scores))
    for verdict in judge(claim, scores):
        log.info("%s", verdict)
    if seed == min(scores[claim.methods[0].name]):
        draw(claim, seed, planes, runs, results / f"{name}.jpg")
    write_summary(results)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    description, epilog = (__doc__ or "\n\n").split("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=epilog, allow_abbrev=False)
    parser.add_argument("claims", nargs="+", metavar="CLAIM", help=f"all, or some of {', '.join(claim_names())}")
    parser.add_argument(
        "--scale",
        default="small",
        help="small: simulated cells, hours on two cores; medium: three times the fields and steps; full: the paper's",
    )
    parser.add_argument(
        "--seeds", type=whole_number(0), nargs="+", metavar="SEED", help="some seeds instead of the scale's"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/experiments"),
        help="data, runs and results, in a folder for each scale (%(default)s)",
    )
    parser.add_argument("--data", type=Path, help="real data to train on, for --scale full")
    parser.add_argument("--test", type=Path, help="real data to score, for --scale full")
    parser.add_argument("--device", default="auto", help="of predictions (%(default)s)")
    parser.add_argument(
        "--jobs", type=whole_number(1), default=os.cpu_count() or 1, help="trainings at once (%(default)s)"
    )
    return parser.parse_args(arguments)
