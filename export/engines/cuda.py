"""The CUDA runtime through its C interface: memory, copies and a stream, without torch (CUDA Runtime API reference)."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any, Iterator

from export.errors import BackendError, NotHere

_NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_FOLDERS = (
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/aarch64-linux/lib",
    "/usr/local/cuda/targets/sbsa-linux/lib",
)
_PACKAGES = ("nvidia", "onnxruntime_ep_nv_tensorrt_rtx")
"""Installed packages that carry the library."""
TO_DEVICE, TO_HOST = 1, 2
NOT_ENOUGH_MEMORY = 2
NO_DRIVER = (35, 100)
"""cudaErrorInsufficientDriver, and cudaErrorNoDevice."""


class Cuda:
    """Memory of the GPU and one stream; all of it is given back by `close`."""

    def __init__(self) -> None:
        self._library = library()
        self._held: dict[int, int] = {}
        self._stream = ctypes.c_void_p()
        self._is_open = False
        self._check(self._library.cudaStreamCreate(ctypes.byref(self._stream)), "a stream is made")
        self._is_open = True

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return self._stream.value or 0

    @property
    def held_bytes(self) -> int:
        """What is allocated."""
        return sum(self._held.values())

    def memory(self, size: int) -> int:
        """The address of so many bytes on the GPU.

        Raises:
            BackendError: if there are not so many.
        """
        address = ctypes.c_void_p()
        code = self._library.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        self._check(code, f"{size:,} bytes are allocated")
        assert address.value is not None
        self._held[address.value] = size
        return address.value

    def free(self, address: int) -> None:
        """Give back what `memory` gave."""
        del self._held[address]
        self._check(self._library.cudaFree(ctypes.c_void_p(address)), "memory is given back")

    def copy_in(self, address: int, array: Any) -> None:
        """Copy a contiguous array to the GPU, in the stream."""
        self._copy(address, array.ctypes.data, array.nbytes, TO_DEVICE)

    def copy_out(self, array: Any, address: int) -> None:
        """Copy from the GPU into a contiguous array, in the stream; it is there after `wait`."""
        self._copy(array.ctypes.data, address, array.nbytes, TO_HOST)

    def wait(self) -> None:
        """Until all that the stream was given is done."""
        self._check(self._library.cudaStreamSynchronize(self._stream), "an inference runs")

    def close(self) -> None:
        """Give everything back; twice is once."""
        if not self._is_open:
            return
        self._is_open = False
        # Nothing is checked: after a failed kernel every call fails, and what failed was told.
        while self._held:
            self._library.cudaFree(ctypes.c_void_p(self._held.popitem()[0]))
        self._library.cudaStreamDestroy(self._stream)

    def _copy(self, to: int, source: int, size: int, direction: int) -> None:
        code = self._library.cudaMemcpyAsync(
            ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), direction, self._stream
        )
        self._check(code, f"{size:,} bytes are copied")

    def _check(self, code: int, doing: str) -> None:
        if code != 0:
            raise refusal(self._library, code, doing)


def refusal(loaded: Any, code: int, doing: str) -> BackendError | NotHere:
    """What an error of the runtime means."""
    name, says = _text(loaded.cudaGetErrorName, code), _text(loaded.cudaGetErrorString, code)
    if code in NO_DRIVER:
        return NotHere(f"there is no GPU that CUDA can use ({name}: {says})")
    if code == NOT_ENOUGH_MEMORY:
        return BackendError(f"the GPU has not enough memory ({name}) where {doing}; a smaller input needs less")
    return BackendError(f"CUDA fails where {doing} ({name}: {says})")


def library() -> Any:
    """The library.

    Raises:
        NotHere: if there is none.
    """
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise NotHere("the CUDA runtime (libcudart.so) is not installed, or not where libraries are looked for")


def _places() -> Iterator[str]:
    yield from _NAMES
    for folder in _FOLDERS:
        yield from (str(Path(folder) / name) for name in _NAMES)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(str(path) for path in Path(folder).rglob("libcudart.so*"))


def _text(function: Any, code: int) -> str:
    function.restype = ctypes.c_char_p
    return (function(code) or b"unknown").decode("ascii", "replace")


def gpu_name() -> str | None:
    """What the first GPU is called; None where no driver offers one (CUDA Driver API)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, 100, device):
        return None
    return name.value.decode("ascii", "replace")
