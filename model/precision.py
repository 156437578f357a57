"""Mixed precision: float32, or a 16-bit type where the hardware supports it.

Sums, the statistics of normalisation, the last layer and the foreground branch stay float32 in each of them.
"""

from enum import StrEnum

import torch


class Precision(StrEnum):
    """Number format of the convolutions' factors."""

    FP32 = "fp32"
    BF16 = "bf16"  # float32's range, 8 bits of mantissa
    FP16 = "fp16"  # 11 bits of mantissa, overflows beyond 65504

    @classmethod
    def fastest(cls, device: torch.device) -> "Precision":
        """Choose the fastest format whose images equal float32's to the eye (docs/performance.md has the figures)."""
        return cls.BF16 if multiplies_bfloat16(device) else cls.FP32

    def on(self, device: torch.device) -> torch.autocast:
        """Return a context in which networks compute in this format."""
        dtype = torch.float16 if self is Precision.FP16 else torch.bfloat16
        return torch.autocast(device.type, dtype, enabled=self is not Precision.FP32)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16, rather than converting to float32 and back."""
    match device.type:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        case "cpu":
            capabilities = torch.cpu.get_capabilities()
            return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
        case _:
            return False
