"""The architecture of a network, as data: recorded in every checkpoint, and enough to build the network."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..labels import Organelle

NetworkName = Literal["resnet", "unetplusplus"]
Upsampling = Literal["transposed", "filtered", "resize"]


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a network's shape; ValueError where it describes none."""

    network: NetworkName
    width: int  # channels at full resolution; the paper's generator has 64
    organelles: tuple[Organelle, ...] = tuple(Organelle)  # one head each, in the order of the output
    blocks: int = 9  # residual blocks; the UNet++ has none
    dynamic: bool = False  # first convolution generated from the modality code
    dropout: float = 0.0  # probability while training; never active in eval mode
    upsampling: Upsampling = "transposed"  # of the ResNet's decoders: as in pix2pix; the others print no checkerboard
    foreground: bool = False  # a branch fades predictions to the background where there are no cells

    def __post_init__(self) -> None:
        if self.network not in get_args(NetworkName):
            raise ValueError(f"network {self.network!r}, expected one of {sorted(get_args(NetworkName))}")
        if self.upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling {self.upsampling!r}, expected one of {sorted(get_args(Upsampling))}")
        # The bounds keep a forged checkpoint from asking for more than a computer has.
        if not 1 <= self.width <= 512 or not 0 <= self.blocks <= 64 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"width {self.width}, blocks {self.blocks}, dropout {self.dropout}, "
                "expected width in [1, 512], blocks in [0, 64], dropout in [0, 1)"
            )
        if not self.organelles or len(set(self.organelles)) != len(self.organelles):
            raise ValueError(f"organelles {self.organelles}, expected one or more, none twice")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        organelles = [str(organelle) for organelle in self.organelles]
        return asdict(self) | {"organelles": organelles, "dropout": float(self.dropout)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """Inverse of `to_dict`; ValueError names keys that are missing or unknown."""
        known = {field.name for field in fields(cls)}
        # Checkpoints from before there was a choice do not name these.
        values = {"upsampling": "transposed", "foreground": False, **values}
        if set(values) != known:
            raise ValueError(f"architecture with the keys {sorted(values)}, expected {sorted(known)}")
        kinds = {"network": str, "width": int, "blocks": int, "dropout": float, "upsampling": str}
        for key, kind in (kinds | {"dynamic": bool, "foreground": bool}).items():
            if type(values[key]) is not kind:
                raise ValueError(f"architecture with {key} {values[key]!r}, expected {kind.__name__}")
        return cls(**{**values, "organelles": tuple(Organelle(name) for name in values["organelles"])})
