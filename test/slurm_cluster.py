"""A Slurm cluster of one node: this machine, for as long as the tests run.

``python test/slurm_cluster.py COMMAND …`` runs a command within such a cluster.
"""

import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_DAEMONS = ("munged", "slurmctld", "slurmd")
_SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
_START_S = 60

# GPUs are placeholders: of a device file Slurm takes the number for CUDA_VISIBLE_DEVICES.
_CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
GresTypes=gpu
KillWait=3
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE
"""


class SlurmUnavailableError(Exception):
    """Why there can be no cluster on this machine."""


@contextmanager
def one_node_slurm() -> Iterator[Path]:
    """Run a cluster with one partition, ``main``, of eight CPUs and two placeholder GPUs; yields its slurm.conf.

    Raises SlurmUnavailableError where the packages ``slurm-wlm`` and ``munge`` or the rights of root are missing.
    """
    programs = {name: shutil.which(name, path=_SEARCHED) for name in _DAEMONS}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        raise SlurmUnavailableError(f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)")
    if os.geteuid():
        raise SlurmUnavailableError("only root can run a cluster")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))  # a short path, for a socket
        folder.chmod(0o755)
        configuration = _write_configuration(folder)

        def start(name: str, *options: str) -> None:
            environment = os.environ | {"SLURM_CONF": str(configuration)}
            output = stack.enter_context((folder / f"{name}.out").open("w"))
            command = [str(programs[name]), *options]
            daemon = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            stack.callback(_stop, daemon)

        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
        start("munged", "--foreground", "--force", f"--socket={folder}/munge", *munge)
        _wait_for((folder / "munge").exists, folder)
        start("slurmctld", "-D")
        start("slurmd", "-D")
        _wait_for(lambda: _slurm(configuration, "sinfo", "-h", "-o", "%T").strip() == "idle", folder)
        stack.callback(_end_jobs, configuration)
        yield configuration


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of commands such as sbatch, within a cluster that is there until the tests have ended."""
    with ExitStack() as stack:
        try:
            configuration = stack.enter_context(one_node_slurm())
        except SlurmUnavailableError as error:
            pytest.skip(str(error))
        yield os.environ | {"SLURM_CONF": str(configuration)}


def _write_configuration(folder: Path) -> Path:
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    (folder / "state").mkdir()
    for number in range(2):
        try:
            os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o666, Path("/dev/null").stat().st_rdev)
        except PermissionError as error:
            raise SlurmUnavailableError("placeholder GPUs need the right to make device files") from error
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    names = {"host": socket.gethostname().split(".")[0], "folder": folder}
    path = folder / "slurm.conf"
    path.write_text(_CONFIGURATION.format(**names, controller_port=ports[0], node_port=ports[1]))
    return path


def _slurm(configuration: Path, *command: str) -> str:
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def _end_jobs(configuration: Path) -> None:
    _slurm(configuration, "scancel", "--user=root")
    deadline = time.monotonic() + _START_S
    while _slurm(configuration, "squeue", "-h").strip() and time.monotonic() < deadline:
        time.sleep(0.2)


def _wait_for(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
            raise RuntimeError(f"the cluster does not start:\n{logs}")
        time.sleep(0.1)


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


if __name__ == "__main__":
    with one_node_slurm() as path:
        raise SystemExit(subprocess.run(sys.argv[1:], env=os.environ | {"SLURM_CONF": str(path)}).returncode)
