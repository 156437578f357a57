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
        return cls.BF16 if bfloat16_is_faster(device) else cls.FP32

    def on(self, device: torch.device) -> torch.autocast:
        """Return a context in which networks compute in this format."""
        dtype = torch.float16 if self is Precision.FP16 else torch.bfloat16
        return torch.autocast(device.type, dtype, enabled=self is not Precision.FP32)


def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 faster than float32, rather than converting to float32 and back.

    Intel's processors with AVX512-BF16 but without AMX multiply it at half the rate of float32.
    """
    match device.type:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        case "cpu":
            capabilities = torch.cpu.get_capabilities()
            if str(capabilities.get("cpu_name", "")).startswith("Intel"):
                return bool(capabilities.get("amx_bf16", False))
            return bool(capabilities.get("avx512_bf16", False))
        case _:
            return False
