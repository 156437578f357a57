"""The small parts that both networks are made of, and the checks both make of what they are given.

Shape suffixes: B samples, C channels, Y rows, X columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from model.vocabulary import Organelle


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1; no parameters, as in pix2pix.

    Group normalisation with one channel a group is the same thing, and on a CPU three times as fast.
    """

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return F.group_norm(x_BCYX, x_BCYX.shape[1])


def check_plane(x_B1YX: Tensor, stride: int) -> None:
    """Raise ValueError unless this is one channel with sides that are multiples of `stride`, at least two."""
    sides = x_B1YX.shape[-2:]
    if x_B1YX.ndim != 4 or x_B1YX.shape[1] != 1:
        raise ValueError(f"input of shape {tuple(x_B1YX.shape)}, expected (samples, 1, rows, columns)")
    if any(side % stride or side < 2 * stride for side in sides):
        # One pixel at the coarsest level would leave instance normalisation nothing to compare.
        raise ValueError(
            f"input of {tuple(sides)} pixels, expected multiples of {stride} from {2 * stride} on"
        )


def asked_heads(asked: Sequence[Organelle] | None, there: Sequence[Organelle]) -> list[str]:
    """Names of the heads to compute, in the order asked for; ValueError for none, or one that is not there."""
    organelles = there if asked is None else asked
    missing = [str(organelle) for organelle in organelles if organelle not in there]
    if missing or not organelles:
        raise ValueError(f"asked for {missing or 'no organelle'}, expected some of {[str(o) for o in there]}")
    return [str(organelle) for organelle in organelles]
