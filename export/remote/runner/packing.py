"""Bytes on their way: packed without loss where that makes fewer of them, unpacked to as many as were announced."""

from __future__ import annotations

import zlib

import numpy as np

LEVEL = 1
"""zlib's fastest: a board's processor must not take longer than a slow link would."""
TRIED = 1 << 16
"""Bytes that tell whether it is worth it: weights hardly get smaller."""
WORTH = 0.9
"""The share of the bytes that must be left at most."""


def packed(data: bytes, width: int = 1) -> tuple[bytes, bool]:
    """What travels, and whether it is packed.

    Args:
        width: bytes of a number, whose first, second, ... bytes are laid side by side: exponents are much alike where
            the last digits are noise (logits of a U-Net: 0.75 of their bytes, and 0.89 as they are).
    """
    if len(_packed(data[:TRIED], width)) > WORTH * min(len(data), TRIED):
        return data, False
    small = _packed(data, width)
    return (small, True) if len(small) <= WORTH * len(data) else (data, False)


def unpacked(payload: bytes, size: int, width: int = 1) -> bytes:
    """The `size` bytes that were packed.

    Raises:
        ValueError: if the payload is not these: never more memory is taken than was announced.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, size + 1)
    except zlib.error as error:
        raise ValueError(f"what was packed cannot be unpacked ({error})") from None
    if len(data) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"{size:,} bytes were packed, and {len(data):,} or more are unpacked")
    return np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes() if width > 1 else data


def _packed(data: bytes, width: int) -> bytes:
    if width > 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
    return zlib.compress(data, LEVEL)
