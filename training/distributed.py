"""Training by several processes (ranks), as torchrun starts them; without torchrun, one process that is rank 0.

What a step depends on is the same on all ranks: weights, moments and decisions. Only the samples differ.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from model.commands import NOT_BEGUN
from model.errors import UserError

T = TypeVar("T")

CPU = torch.device("cpu")
LONGEST_WAIT = timedelta(days=1)
"""For another rank: rank 0 may check and validate for long. torchrun itself notices ranks that have ended."""


def join() -> None:
    """Join the process group where torchrun started this process: gloo for CPU tensors, NCCL for those of a GPU."""
    if not dist.is_torchelastic_launched():
        return
    store, rank, world_size = next(rendezvous("env://"))
    if os.environ["GROUP_WORLD_SIZE"] == "1":
        # torchrun's store outlives a restart, with the addresses of processes that are gone (PyTorch issue 135712).
        # Only on one machine do all ranks count restarts alike.
        store = PrefixStore(f"restart_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=LONGEST_WAIT)


def leave(code: int) -> None:
    """Wait until all ranks are done, and end this process; without torchrun, do nothing.

    torchrun ends the ranks that still write when the first one fails. Python's own way out is not taken: a thread of
    gloo may abort it ("terminate called without an active exception", seen with torch 2.13).

    Parameters
    ----------
    code : int
        The exit code.
    """
    if dist.is_initialized():
        with suppress(UserError):  # a rank that has left already has nothing to write either
            sum_over_ranks([0.0])
        logging.shutdown()
        os._exit(code)


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(name: str) -> str:
    """Name this rank's device; raises UserError where one GPU is named for all ranks of a machine.

    Parameters
    ----------
    name : str
        As of `model.devices.find_device`; auto and cuda are a GPU of its own for each rank.
    """
    if not dist.is_initialized() or name in ("cpu", "mps") or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise UserError(f"--device is {name}, expected auto, cuda or cpu under torchrun, which numbers the GPUs.")
    return f"cuda:{os.environ['LOCAL_RANK']}"


def on_first_rank(compute: Callable[[], T]) -> T:
    """Compute on rank 0 while the others wait, and give all of them the result.

    Parameters
    ----------
    compute : callable
        Its result is sent to the other ranks as a pickle.

    Raises
    ------
    UserError
        As raised by `compute`, on rank 0; the other ranks end without a word of their own.
    """
    if world_size() == 1:
        return compute()
    if rank() == 0:
        try:
            result = compute()
        except (UserError, SystemExit):
            _broadcast((False, None))
            raise
        _broadcast((True, result))
        return result
    succeeded, result = _broadcast(None)
    if not succeeded:
        raise SystemExit(NOT_BEGUN)
    return result


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Sum each number over the ranks, which wait for each other here."""
    if world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    with _others_needed():
        dist.all_reduce(total)
    return total.tolist()


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum each parameter's gradient over the ranks; without one on any rank it stays without.

    Not DistributedDataParallel: that averages, where each rank's loss is already its share of the whole, and it wants
    every backward pass to follow one forward pass of the same module, but the discriminators are asked three times a
    step, once without gradients of their own. One all-reduce takes milliseconds of a step at full size.
    """
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    # Behind the gradients: which of them there are, since an optimizer skips a parameter that has none.
    there = gradients[0].new_tensor([float(p.grad is not None) for p in trained])
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), there])
    with _others_needed():
        dist.all_reduce(flat)
    *sums, there = torch.split(flat, [*(p.numel() for p in trained), len(trained)])
    for parameter, gradient, total, ranks in zip(trained, gradients, sums, there.tolist(), strict=True):
        parameter.grad = gradient.copy_(total.view_as(gradient)) if ranks else None


@torch.no_grad()
def copy_from_first_rank(module: nn.Module) -> None:
    """Give all ranks the weights of rank 0: a seed draws the same ones only on processors of one kind."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            with _others_needed():
                dist.broadcast(tensor, src=0)


def _broadcast(value: Any) -> Any:
    """Give all ranks the value that rank 0 has."""
    values = [value]
    with _others_needed():
        dist.broadcast_object_list(values, src=0, device=CPU)
    return values[0]


@contextmanager
def _others_needed() -> Iterator[None]:
    """Say in one sentence that another rank is not there any more; NCCL and gloo do so in many lines."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(
            f"Rank {rank()} lost another rank ({reason}); the last saved state stands: --resume goes on from there."
        ) from error
