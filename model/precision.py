"""In which numbers a network computes: float32, or bfloat16 where the hardware multiplies in it."""

import torch


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
