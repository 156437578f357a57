"""A branch beside either network that tells cells from an empty dish. Not in the paper.

Shape suffixes: B samples, C channels, O organelles, Y rows, X columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..labels import Organelle

CHANNELS = (16, 32, 48)
DILATIONS = (1, 2, 4, 8, 4, 2, 1)  # of features of 8 px: it sees 380 px, a cell and its surroundings
BACKGROUND = -0.75  # at the start: that of targets normalized by their percentiles
OPEN = 3.0  # logit of the start: nearly everything is kept
CELL = 5  # features that a cell covers, a side: 40 px, 12 µm
AROUND = 65  # features, a side, of the surroundings in which there must be one: 520 px
CERTAIN = 1.5  # logit at which a cell is half certain
STEEPNESS = 4.0
FAINT = 0.1  # what is kept at least of the rest, where there seems to be no cell


class Foreground(nn.Module):
    """The share of each prediction that is kept, in [0, 1]; the rest becomes background.

    Instance norm gives every plane the same variance, so behind it noise and dust of an empty dish are as strong as
    cells, and are drawn as organelles. This branch has no normalization: what it sees keeps its scale and its texture.

    Two thresholds, as in hysteresis thresholding: near a cell that is certain, what is uncertain is kept as well; where
    nothing is certain all around, little is.
    """

    def __init__(self, organelles: Sequence[Organelle]) -> None:
        super().__init__()
        self.names = [str(organelle) for organelle in organelles]
        inputs = (1, *CHANNELS[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, size, stride=2, padding=size // 2)
            for before, after, size in zip(inputs, CHANNELS, (7, 3, 3), strict=True)
        )
        self.context = nn.ModuleList(
            nn.Conv2d(CHANNELS[-1], CHANNELS[-1], 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        self.last = nn.Conv2d(CHANNELS[-1], len(organelles), 1)
        self.background = nn.Parameter(torch.full((len(organelles),), BACKGROUND))
        self.register_buffer("kept_from", torch.zeros(()))
        self.kept_from: Tensor  # logit of a structure at which half of a prediction is kept, beside a cell
        if not self.last.weight.is_meta:
            for layer in (*self.down, *self.context):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(self.last.weight)
            assert self.last.bias is not None  # for mypy
            nn.init.constant_(self.last.bias, OPEN)

    def logits(self, x_B1YX: Tensor) -> Tensor:
        """Map (B, 1, Y, X) to (B, O, Y / 8, X / 8), rounded up: before the sigmoid, in float32.

        In any precision: the thresholds behind it would multiply what 16 bits round.
        """
        with torch.autocast(x_B1YX.device.type, enabled=False):
            features = x_B1YX.float()
            for down in self.down:
                features = F.relu(down(features))
            for context in self.context:
                features = features + F.relu(context(features))
            logits: Tensor = self.last(features)
        return logits

    def forward(self, x_B1YX: Tensor) -> Tensor:
        """Map (B, 1, Y, X) to (B, O, Y, X) float32 in [0, 1]."""
        logits = self.logits(x_B1YX)
        seen = FAINT + (1 - FAINT) * torch.sigmoid(STEEPNESS * (cells_around(logits) - CERTAIN))
        both = torch.cat([logits - self.kept_from, seen], 1)
        wide: Tensor = F.interpolate(both, x_B1YX.shape[2:], mode="bilinear")
        return torch.sigmoid(wide[:, :-1]) * wide[:, -1:]

    def fade(self, prediction_BCYX: Tensor, x_B1YX: Tensor, names: Sequence[str]) -> Tensor:
        """Fade predictions (B, C, Y, X) of the named organelles to the background where there are no cells."""
        channels = [self.names.index(name) for name in names]
        background = self.background[channels, None, None]
        kept_BCYX: Tensor = self(x_B1YX)[:, channels]
        return background + kept_BCYX * (prediction_BCYX - background)


def cells_around(logits_BOYX: Tensor) -> Tensor:
    """Find the most certain cell around each feature: (B, O, y, x) to (B, 1, y, x), of the mean over organelles."""
    mean_B1YX = logits_BOYX.mean(1, keepdim=True)
    cells = F.avg_pool2d(mean_B1YX, CELL, stride=1, padding=CELL // 2, count_include_pad=False)
    for window in ((AROUND, 1), (1, AROUND)):  # one axis after the other: a fraction of the work
        cells = F.max_pool2d(cells, window, stride=1, padding=(window[0] // 2, window[1] // 2))
    return cells
