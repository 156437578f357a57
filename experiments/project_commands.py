"""Run commands of the project in processes of their own."""

import shutil
import subprocess
import sys
from pathlib import Path

from experiments.definitions import FOLDER
from model.errors import UserError

ROOT = FOLDER.parent


def run_command(script: str, *options: object, quiet: bool = False) -> None:
    """Run a script of the project's root; raises UserError unless it ends with exit code 0.

    Parameters
    ----------
    script : str
    *options : object
        Its command line.
    quiet : bool
        Drop what it prints to stdout.
    """
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    code = subprocess.run(command, stdout=subprocess.DEVNULL if quiet else None, check=False).returncode
    if code:
        raise UserError(f"{script} ended with exit code {code}, expected 0: see what it wrote before this line.")


def simulate(folder: Path, *options: object) -> Path:
    """Render fields by `simulate.py` with its options, unless the folder has them; returns the folder.

    An interrupted folder is rendered anew; raises UserError where `simulate.py` fails.
    """
    if not (folder / "SIMULATED.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        run_command("simulate.py", "--output", folder, *options)
    return folder
