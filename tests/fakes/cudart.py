"""A fake of libcudart, for tests alone: the memory of its GPU is this process's; every call is kept in `calls`."""

from __future__ import annotations

import ctypes
import re
from typing import Any


class Cudart:
    """What `ctypes.CDLL` would give."""

    def __init__(self, memory: int = 1 << 30, code: int = 0) -> None:
        self.calls: list[str] = []
        self.memory, self.code = memory, code
        self.held: dict[int, Any] = {}

    def __getattr__(self, name: str) -> _Function:
        return _Function(self, name)

    def answer(self, name: str, given: tuple[Any, ...]) -> Any:
        if name in ("cudaGetErrorName", "cudaGetErrorString"):
            known = {2: b"cudaErrorMemoryAllocation", 35: b"cudaErrorInsufficientDriver"}
            return known.get(given[0], b"cudaErrorUnknown")
        self.calls.append(name)
        own = re.sub("([A-Z])", r"_\1", name.removeprefix("cuda")).lower()
        return self.code or getattr(self, own)(*given)

    def _stream_create(self, stream: Any) -> int:
        stream._obj.value = 77
        return 0

    def _stream_destroy(self, stream: Any) -> int:
        return 0

    def _stream_synchronize(self, stream: Any) -> int:
        assert stream.value == 77
        return 0

    def _malloc(self, address: Any, size: Any) -> int:
        if size.value > self.memory:
            return 2
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.held[address._obj.value] = buffer
        return 0

    def _free(self, address: Any) -> int:
        del self.held[address.value]
        return 0

    def _memcpy_async(self, to: Any, source: Any, size: Any, direction: int, stream: Any) -> int:
        inside = to if direction == 1 else source
        assert inside.value in self.held and size.value <= len(self.held[inside.value])
        ctypes.memmove(to.value, source.value, size.value)
        return 0


class _Function:
    restype: Any = ctypes.c_int

    def __init__(self, library: Cudart, name: str) -> None:
        self._library, self._name = library, name

    def __call__(self, *given: Any) -> Any:
        return self._library.answer(self._name, given)
