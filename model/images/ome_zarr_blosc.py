"""Make zarr refuse Blosc chunks that are cut short: numcodecs 0.16 reads on, into memory that is not theirs.

https://github.com/zarr-developers/numcodecs/issues/228
"""

from functools import cache
from typing import Any

import zarr
from numcodecs.blosc import Blosc
from numcodecs.registry import register_codec as register_for_zarr_2
from zarr.codecs import BloscCodec
from zarr.registry import register_codec as register_for_zarr_3

_NAME = "blosc"
_HEADER_BYTES = 16
_LENGTH = slice(12, 16)  # in the header: bytes of the chunk, header included


class _CheckedBlosc(Blosc):  # type: ignore[misc]  # numcodecs and zarr are untyped here
    def decode(self, buf: Any, out: Any = None) -> Any:
        _check_length(buf)
        return super().decode(buf, out)


class _CheckedBloscCodec(BloscCodec):  # type: ignore[misc]
    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        _check_length(chunk_bytes.as_numpy_array())
        return await super()._decode_single(chunk_bytes, chunk_spec)


@cache
def check_blosc_chunks() -> None:
    """Let zarr decode Blosc with a check of each chunk's length, in the whole process; ValueError where it is cut."""
    register_for_zarr_2(_CheckedBlosc, _NAME)
    register_for_zarr_3(_NAME, _CheckedBloscCodec)
    zarr.config.set({f"codecs.{_NAME}": f"{_CheckedBloscCodec.__module__}.{_CheckedBloscCodec.__qualname__}"})


def _check_length(chunk: Any) -> None:
    stored = memoryview(chunk).cast("B")
    if not _HEADER_BYTES <= int.from_bytes(stored[_LENGTH], "little") <= len(stored):
        raise ValueError("a Blosc chunk is cut short")
