"""The folder of a run: what is in it, and when it may be begun or gone on with."""

import shutil
from pathlib import Path
from typing import Any

import torch

from model.errors import UserError
from model.files import atomic_write, prepare_folder
from training.config import RunConfig
from training.exclusive import LOCK
from training.metrics_logger import LOG, TENSORBOARD
from training.options import CONFIG_FILE, write_config

STATE_FORMAT = 5
STATE, LAST, BEST = "state.pt", "last.safetensors", "best.safetensors"
BEFORE_FIRST_STATE = {CONFIG_FILE, LOG, TENSORBOARD}


class RunFolder:
    """``config.toml``, ``state.pt`` (all that the next step depends on), checkpoints and logs of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state, self.last, self.best = path / STATE, path / LAST, path / BEST

    def require_new(self) -> None:
        """Raise UserError where a new run would meet files, other than those of one that saved no state.

        Nothing is written, so this can be asked before any work.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path}: is a file, expected a new folder.")
        names = {entry.name for entry in self.path.iterdir()} - {LOCK}
        if names and not (CONFIG_FILE in names and names <= BEFORE_FIRST_STATE):
            resumable = ", or --resume to go on with the run in it" if self.state.exists() else ""
            raise UserError(f"{self.path}: is not empty, expected a new or empty folder{resumable}.")

    def begin(self, config: RunConfig) -> None:
        """Make the folder of a new run, without what one that saved no state has left, and write ``config.toml``."""
        self.require_new()
        prepare_folder(self.path)
        (self.path / LOG).unlink(missing_ok=True)
        shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)
        write_config(config, self.path)

    def resume(self, config: RunConfig) -> None:
        """Write ``config.toml`` anew: some options may be others now."""
        prepare_folder(self.path)
        write_config(config, self.path)

    def write_state(self, state: dict[str, Any]) -> None:
        """Store plain types and tensors, whole or not at all."""
        with atomic_write(self.state) as file:
            torch.save({"format": STATE_FORMAT, **state}, file)

    def read_state(self, device: torch.device) -> dict[str, Any]:
        """Read what `write_state` stored; raises UserError where it is damaged or of another version."""
        try:
            state: dict[str, Any] = torch.load(self.state, map_location=device, weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            raise UserError(f"{self.state}: cannot be read as a training state ({type(error).__name__}).") from error
        if state.get("format") != STATE_FORMAT:
            raise UserError(f"{self.state}: has format {state.get('format')}, expected {STATE_FORMAT}.")
        return state
