"""Predict every image of a folder by several workers: processes of this machine, or jobs of a cluster.

As inference.py does, with the same options, outputs, log and exit codes; a part whose worker ends is begun again. What
the options do not say of jobs is taken from dask-jobqueue's configuration file.
"""

import argparse
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from dask.utils import parse_bytes
from distributed import Client

from ..batch import Outcome
from ..command_line import Cases, exit_code, log_networks, networks_folder, open_predictor, predict_folder
from ..commands import SOME_FAILED, log_to_standard_streams, one_sentence, whole_number
from ..errors import UserError
from ..options import add_list, batch_options, inference_settings, parse
from .clusters import JOB_CLUSTERS, JOB_MEMORY, open_cluster, threads_per_worker
from .dispatch import Dispatcher, LostError, prepare_workers
from .worker import WorkerOptions

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.

    Returns
    -------
    int
        The exit code, see `commands`.
    """
    options = parse(arguments, __doc__, add_list, add_workers)
    log_to_standard_streams()
    return exit_code(lambda: distribute(options))


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where workers run."""
    add = parser.add_argument
    count = whole_number(1)
    add("--workers", type=count, required=True, metavar="N", help="worker processes, or jobs of one worker each")
    add("--cpus", type=count, metavar="N", help="cores of each worker (this machine's, divided; of a job 4)")
    add("--scheduler", choices=list(JOB_CLUSTERS), help="make each worker a job of this scheduler")
    add("--slurm", dest="scheduler", action="store_const", const="slurm", help="the same as --scheduler slurm")
    add("--partition", metavar="NAME", help="partition or queue of the jobs")
    add("--walltime", metavar="HH:MM:SS", help="time limit of a job; one that reaches it is replaced")
    add("--memory", type=memory, metavar="SIZE", help=f"of a job ({JOB_MEMORY})")
    add("--gpu", action="store_true", help="ask Slurm for a GPU for each job")


def memory(text: str) -> str:
    """Check a size such as 16GB; raises argparse.ArgumentTypeError, one sentence, for other text."""
    try:
        parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as {JOB_MEMORY}") from error
    return text


def distribute(options: argparse.Namespace) -> int:
    """Predict the images of the input folder; raises UserError where nothing can be begun."""
    _check(options)
    for name in ("input", "output", "resources", "list"):  # workers may start in another folder
        if (path := getattr(options, name)) is not None:
            setattr(options, name, Path(os.path.abspath(path)))
    try:
        return predict_folder(options, by_workers).code
    except LostError as error:
        log.error(one_sentence(error))
        return SOME_FAILED


@contextmanager
def by_workers(cases: Cases, options: argparse.Namespace) -> Iterator[Iterable[Outcome]]:
    """Predict by the workers that the options ask for."""
    where = f"{options.workers} worker{'' if options.workers == 1 else 's'} ({options.scheduler or 'this machine'})"
    with open_predictor(options, "cpu") as predictor:  # what is wrong with the networks is said before any job waits
        log_networks(predictor, options, where)
    worker_options = WorkerOptions(
        Path(os.path.abspath(networks_folder(options))),
        options.device,
        inference_settings(options),
        options.rescale,
        batch_options(options),
    )
    with open_cluster(options) as cluster, Client(cluster, set_as_default=False) as client:
        prepare_workers(client, threads_per_worker(options))
        with closing(Dispatcher(client, cluster, options.workers, worker_options)) as dispatcher:
            yield dispatcher.outcomes(cases, len(cases))


def _check(options: argparse.Namespace) -> None:
    if options.device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(
            f"--device {options.device}: expected auto, cpu, cuda or mps, since each worker has one device."
        )
    if options.preview:
        raise UserError("--preview is not of this command; inference.py writes it afterwards from what is predicted.")
    if options.gpu and options.scheduler != "slurm":
        raise UserError("--gpu is for Slurm; for other schedulers, dask-jobqueue's configuration file asks for GPUs.")
    if not options.scheduler and (options.partition or options.walltime or options.memory):
        raise UserError("--partition, --walltime and --memory are of jobs, expected --slurm or --scheduler with them.")
