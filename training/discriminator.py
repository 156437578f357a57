"""The discriminator of one organelle: a 70x70 PatchGAN that sees the input beside the target (paper, section 2.2)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from model.labels import Organelle

SMALLEST_CROP = 24
"""Pixels a side from which on the last normalization sees more than one value a channel."""


class PatchDiscriminator(nn.Module):
    """Logits of "real" for overlapping 70x70 patches.

    4x4 convolutions: w (stride 2, not normalized), 2w (2), 4w (2), 8w (1), 1 (1), with instance norm and leaky
    ReLU 0.2 between, weights from N(0, 0.02).

    Parameters
    ----------
    width : int
        Channels w of the first layer.

    References
    ----------
    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017, appendix 6.1.2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for source, target, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(source * width, target * width, 4, stride, 1),
                nn.InstanceNorm2d(target * width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(8 * width, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x_B1YX: Tensor, y_B1YX: Tensor) -> Tensor:
        """Return logits (B, 1, y, x), one per patch, for targets (or predictions) given their inputs."""
        logits: Tensor = self.layers(torch.cat([x_B1YX, y_B1YX], dim=1))
        return logits


class Discriminators(nn.ModuleDict):
    """One discriminator per organelle, keyed by the organelle's value."""

    def __init__(self, organelles: Iterable[Organelle], width: int) -> None:
        super().__init__({o.value: PatchDiscriminator(width) for o in organelles})

    def discriminate(
        self, x_B1YX: Tensor, y_BCYX: Tensor, labelled_BC: Tensor, organelles: tuple[Organelle, ...]
    ) -> list[Tensor]:
        """Logits of each organelle's labelled samples; an organelle without any is left out (paper, equation 1).

        Parameters
        ----------
        x_B1YX : Tensor
            Inputs.
        y_BCYX : Tensor
            Targets or predictions; C runs over `organelles`.
        labelled_BC : Tensor of bool
            Which of them are labelled.
        organelles : tuple of Organelle

        Returns
        -------
        list of Tensor
            One (labelled samples, 1, y, x) for each organelle that has any.
        """
        logits = []
        for c, organelle in enumerate(organelles):
            has = labelled_BC[:, c]
            if has.any():
                logits.append(self[organelle.value](x_B1YX[has], y_BCYX[has, c, None]))
        return logits
