"""Start workers: processes of this machine, or jobs of a cluster's scheduler."""

import argparse
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dask
import torch
from dask_jobqueue import LSFCluster, PBSCluster, SGECluster, SLURMCluster
from dask_jobqueue.core import JobQueueCluster
from distributed import Nanny, Scheduler, SpecCluster

from ..commands import one_line
from ..errors import UserError

IMAGES_A_TASK = 16
JOB_LOGS = ".jobs"
"""Folder of the jobs' logs in the output folder."""

CLOSING_S = 20
"""How long workers may take to end."""

JOB_MEMORY = "16GB"
"""Of a job, where no option says more."""

JOB_CLUSTERS = {"slurm": SLURMCluster, "pbs": PBSCluster, "lsf": LSFCluster, "sge": SGECluster}

_CONFIGURATION = {
    # An image that ends its process costs two deaths, then it is left out; see `attempts`.
    "distributed.scheduler.allowed-failures": 2 * IMAGES_A_TASK,
    "distributed.scheduler.worker-saturation": 1.0,  # no task waits at a worker that may die of another one
    "distributed.deploy.lost-worker-timeout": "60s",  # starting again takes a while where others compute
}
_WHOLE_PROCESS = {"nthreads": 1, "memory_limit": 0}  # `predict_cases` has its own threads and keeps freed memory


@contextmanager
def open_cluster(options: argparse.Namespace) -> Iterator[SpecCluster]:
    """Start the workers that the options ask for; UserError where that cannot be done."""
    dask.config.set(_CONFIGURATION)
    try:
        cluster = _jobs(options) if options.scheduler else _processes(options)
    except Exception as error:
        raise UserError(f"The workers cannot be started: {_reason(error)}") from error
    try:
        yield cluster
    finally:
        with suppress(Exception):  # the work is done or given up; what is left ends with this process
            cluster.close(timeout=CLOSING_S)


def threads_per_worker(options: argparse.Namespace) -> int:
    """Threads of each worker's networks: of a job 4, of this machine an equal part, unless the options say it."""
    given: int | None = options.cpus
    if given:
        return given
    return 4 if options.scheduler else max(1, torch.get_num_threads() // options.workers)


def all_jobs_ended(cluster: SpecCluster) -> bool:
    """Whether no job is waiting or running any more; of other schedulers than Slurm this is not asked."""
    if not isinstance(cluster, JobQueueCluster):
        return True
    jobs = {job.job_id for job in list(cluster.workers.values())}
    if not jobs or shutil.which("squeue") is None:
        return False
    listed = subprocess.run(["squeue", "--me", "--noheader", "--format=%A"], capture_output=True, text=True)
    return listed.returncode == 0 and not jobs & set(listed.stdout.split())


def _processes(options: argparse.Namespace) -> SpecCluster:
    gpus = _visible_gpus() if options.device in ("auto", "cuda") else []
    workers = {}
    for number in range(options.workers):
        environment = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        workers[number] = {
            "cls": Nanny,
            "options": {**_WHOLE_PROCESS, "env": environment, "silence_logs": logging.CRITICAL},
        }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}}
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _visible_gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]


def _jobs(options: argparse.Namespace) -> SpecCluster:
    def configured(key: str) -> list[str]:
        return list(dask.config.get(f"jobqueue.{options.scheduler}.{key}", None) or [])

    packages = Path(__file__).resolve().parents[2]
    cluster = JOB_CLUSTERS[options.scheduler](
        queue=options.partition,
        walltime=options.walltime,
        memory=options.memory or JOB_MEMORY,
        cores=threads_per_worker(options),
        processes=1,
        job_name="in-silico-labelling",
        log_directory=str(options.output / JOB_LOGS),
        # The last one counts: of a job's cores all are for the networks of one task.
        worker_extra_args=[*configured("worker-extra-args"), "--nthreads", "1", "--memory-limit", "0"],
        job_extra_directives=[*configured("job-extra-directives"), *(["--gpus=1"] if options.gpu else [])],
        job_script_prologue=[
            *configured("job-script-prologue"),
            f"export PYTHONPATH={shlex.quote(str(packages))}${{PYTHONPATH:+:$PYTHONPATH}}",
        ],
        scheduler_options={
            **dask.config.get(f"jobqueue.{options.scheduler}.scheduler-options"),
            "dashboard_address": ":0",
        },
        silence_logs=logging.CRITICAL,
    )
    try:
        for _ in range(options.workers):
            cluster.worker_spec.update(cluster.new_worker_spec())
        cluster.sync(cluster._correct_state)  # as `scale` does, but with the error of a job that is refused
    except Exception:
        with suppress(Exception):
            cluster.close(timeout=CLOSING_S)
        raise
    return cluster


def _reason(error: Exception) -> str:
    """Return the last thing that a scheduler's command said, or the error itself."""
    message = one_line(str(error).split("stderr:")[-1]) or type(error).__name__
    return message if message.endswith(".") else f"{message}."
