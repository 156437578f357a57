"""Fit one network on one data set: configuration, data, trainer, summary.

Exit code: 0 finished, or stopped after --max-minutes; 1 the run ended before, its last saved state stands; 2 nothing
was begun; 130 interrupted.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from model.commands import DONE, INTERRUPTED, NOT_BEGUN, SOME_FAILED, log_to_standard_streams, one_sentence
from model.devices import find_device
from model.errors import UserError
from model.memory import tune_malloc
from training import distributed
from training.config import RunConfig
from training.data import read_data
from training.exclusive import one_at_a_time
from training.options import parse
from training.run_folder import RunFolder
from training.trainer import Trainer

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
        The exit code.
    """
    log_to_standard_streams("training")
    tune_malloc()
    distributed.join()
    if distributed.rank():
        logging.getLogger(__package__).setLevel(logging.ERROR)  # progress and warnings are the same on all ranks
    with ExitStack() as held:
        return _train(arguments, held)


def _train(arguments: Sequence[str] | None, held: ExitStack) -> int:
    try:
        trainer = prepare(arguments)
        distributed.on_first_rank(lambda: held.enter_context(one_at_a_time(trainer.folder.path, "training")))
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    except KeyboardInterrupt:
        log.error("Interrupted; nothing was begun.")
        return INTERRUPTED
    try:
        interrupted = trainer.run()
    except UserError as error:
        log.error(one_sentence(error))
        return SOME_FAILED
    except KeyboardInterrupt:
        log.error("Interrupted. The last saved state stands: --resume goes on from there.")
        return INTERRUPTED
    log.info(trainer.summary())
    if interrupted and distributed.rank() == 0:
        log.error("Interrupted. The state is saved: --resume goes on from there.")
    code = INTERRUPTED if interrupted else DONE
    distributed.leave(code)
    return code


def prepare(arguments: Sequence[str] | None) -> Trainer:
    """Read configuration and data, and build what trains; raises UserError where nothing can be begun."""
    config, resume = distributed.on_first_rank(lambda: _configure(arguments))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = find_device(distributed.local_device(config.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    data = read_data(config)
    trainer = (Trainer.resume if resume else Trainer)(config, data, device)
    ranks = distributed.world_size()
    log.info(
        "%s, %.2f M parameters, batches of %d, %d steps an epoch, on %s, trained on %s",
        config.recipe,
        sum(p.numel() for p in trainer.module.network.parameters()) / 1e6,
        data.source.batch_size,
        trainer.steps_per_epoch,
        device if ranks == 1 else f"{ranks} ranks of {device.type}",
        trainer.trained_on,
    )
    return trainer


def _configure(arguments: Sequence[str] | None) -> tuple[RunConfig, bool]:
    """What to train, and whether from a saved state."""
    config, resume = parse(arguments)
    folder = RunFolder(config.output)
    if resume and folder.state.is_file():
        return config, True
    folder.require_new()
    if resume:
        log.info("%s: not found, the run begins", folder.state)
    return config, False
