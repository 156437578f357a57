"""Run claims of the paper: train the networks that a claim compares, predict, score, and say whether it holds.

Trainings, predictions and scores that are there already are used again, so that an interrupted run goes on. Exit
code: 0 all claims were run, whatever came out; 1 a training failed; 2 nothing could be begun; 130 interrupted.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.data import Data, prepare
from experiments.definitions import Claim, Scale, claim_names, read_claim, read_scale
from experiments.report import draw, table, write_result, write_summary
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
from model.files import prepare_folder

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    log_to_standard_streams("experiments")
    options = parse(arguments)
    try:
        scale = read_scale(options.scale)
        claims = {name: read_claim(name) for name in (claim_names() if options.claims == ["all"] else options.claims)}
        data = find_data(scale, options)
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    except KeyboardInterrupt:
        log.error("Interrupted.")
        return INTERRUPTED
    try:
        networks = [name for claim in claims.values() for method in claim.methods for name in method.used]
        train(networks, scale, data.training, options.output, options.jobs)
        for name, claim in claims.items():
            report(name, claim, scale, data, options)
    except UserError as error:
        log.error(one_sentence(error))
        return SOME_FAILED
    except KeyboardInterrupt:
        log.error("Interrupted. The same command goes on.")
        return INTERRUPTED
    return DONE


def find_data(scale: Scale, options: argparse.Namespace) -> Data:
    """Simulate the data of the scale, or take the folders that are given."""
    prepare_folder(options.output)
    if scale.simulation is not None:
        return prepare(scale.simulation, options.output / "data", options.jobs)
    if options.data is None or options.test is None:
        raise UserError(f"--scale {options.scale} is given without --data and --test, expected folders of real data.")
    return Data(options.data, options.test, options.test)


def report(name: str, claim: Claim, scale: Scale, data: Data, options: argparse.Namespace) -> None:
    """Score the methods of a claim, log table and verdicts, and write them with the figure."""
    planes = data.focus if claim.planes == "focus" else data.test
    scores = {
        method.name: {seed: score(claim, method, seed, planes, options.output, options.device) for seed in scale.seeds}
        for method in claim.methods
    }
    results = options.output / "results"
    verdicts = write_result(name, claim, options.scale, scores, results)
    log.info("\n%s (%s)\n\n%s\n", claim.claim, claim.source, table(claim, scores))
    for verdict in verdicts:
        log.info("%s", verdict)
    draw(claim, scale.seeds[0], planes, options.output, results / f"{name}.jpg")
    write_summary(results)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    description, epilog = (__doc__ or "\n\n").split("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=epilog, allow_abbrev=False)
    parser.add_argument("claims", nargs="+", metavar="CLAIM", help=f"all, or some of {', '.join(claim_names())}")
    parser.add_argument(
        "--scale", default="small", help="small: simulated cells, hours on two cores; full: the paper's"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/experiments"), help="data, runs, results (%(default)s)"
    )
    parser.add_argument("--data", type=Path, help="real data to train on, for --scale full")
    parser.add_argument("--test", type=Path, help="real data to score, for --scale full")
    parser.add_argument("--device", default="auto", help="of predictions (%(default)s)")
    parser.add_argument(
        "--jobs", type=whole_number(1), default=os.cpu_count() or 1, help="trainings at once (%(default)s)"
    )
    return parser.parse_args(arguments)
