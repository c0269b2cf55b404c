"""The 1-bit kernel: bit for bit what the graph with standard operators says, with every instruction set there is."""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.networks.blocks.signed_conv import SignedConv
from export.artifact import Artifact
from export.backends.onnxruntime import answers
from export.backends.onnxruntime_bits import OnnxRuntimeBits
from export.errors import BackendError, NotHere
from export.kernels import library as kernels
from export.kernels.library import COMPILERS, FLAGS, Library, library
from export.to_onnx import to_onnx

COMPILER = next(filter(None, map(shutil.which, COMPILERS)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: c++, g++ or clang++")
LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "narrow": (nn.Conv2d(16, 16, 3, padding=1, bias=False), (17, 19)),
    "over two words": (nn.Conv2d(130, 37, 3, padding=1, bias=False), (5, 33)),
    "dilated": (nn.Conv2d(64, 6, 3, padding=2, dilation=2, bias=False), (16, 40)),
    "strides": (nn.Conv2d(32, 8, 3, stride=2, padding=1, bias=False), (16, 22)),
    "1x1": (nn.Conv2d(70, 5, 1, bias=False), (5, 6)),
    "uneven": (nn.Conv2d(10, 12, (5, 3), padding=(2, 0), bias=False), (11, 13)),
    "more padding than image": (nn.Conv2d(8, 8, 3, padding=4, bias=False), (3, 3)),
    "no place without border": (nn.Conv2d(8, 8, 3, padding=1, bias=False), (1, 1)),
    "volume": (nn.Conv3d(20, 9, 3, padding=1, bias=False), (5, 6, 7)),
    "line": (nn.Conv1d(12, 12, 3, padding=1, bias=False), (50,)),
}


class One(nn.Module):
    def __init__(self, conv: Any, zeros: bool, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = SignedConv(conv)
        with torch.no_grad():
            weight = torch.randn_like(conv.weight)
            conv.weight.copy_(torch.sign(weight) * ((weight.abs() > 0.4) if zeros else 1.0))
            for parameter in (self.layer.threshold, self.layer.scale, self.layer.bias, self.layer.bend):
                parameter.copy_(torch.randn_like(parameter))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Beside(nn.Module):
    """Layers of one image with the same thresholds, which is compared once, and something else that reads the signs."""

    def __init__(self) -> None:
        super().__init__()
        ones = [One(nn.Conv2d(16, 8, side, padding=side // 2, bias=False), False, side) for side in (1, 3)]
        ones[1].layer.threshold = ones[0].layer.threshold
        self.ones = nn.ModuleList(ones)
        self.threshold = ones[0].layer.threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        signs = torch.where(x >= self.threshold, 1.0, -1.0)
        return torch.cat([*(one(x) for one in self.ones), signs], 1)


class Every(nn.Module):
    """All layers beside each other, each of its own part of the input (1N11): one file for all of them."""

    def __init__(self, zeros: bool) -> None:
        super().__init__()
        self.every = nn.ModuleList(One(conv, zeros, seed) for seed, (conv, _) in enumerate(LAYERS.values()))
        self.shapes = [(1, conv.in_channels, *size) for conv, size in LAYERS.values()]
        self.places = list(pairwise([0, *accumulate(map(math.prod, self.shapes))]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x[:, start:end].reshape(shape) for (start, end), shape in zip(self.places, self.shapes, strict=True)]
        found = [one(part).reshape(1, -1, 1, 1) for one, part in zip(self.every, parts, strict=True)]
        return torch.cat(found, 1)

    @torch.no_grad()
    def by_layer(self, found: np.ndarray) -> dict[str, np.ndarray]:
        """The answer of each layer."""
        sizes = [one(torch.zeros(shape)).numel() for one, shape in zip(self.every, self.shapes, strict=True)]
        assert found.size == sum(sizes)
        return dict(zip(LAYERS, np.split(found.ravel(), list(accumulate(sizes))[:-1]), strict=True))


@pytest.fixture(scope="module")
def built() -> Library:
    return library()


@pytest.fixture(scope="module")
def choose(built: Library) -> Iterator[Any]:
    """Take another instruction set than the best."""
    loaded = ctypes.CDLL(str(built.path))
    loaded.segpress_choose.restype = ctypes.c_char_p
    yield lambda place: loaded.segpress_choose(place).decode()
    loaded.segpress_choose(0)


@needs_compiler
@pytest.mark.parametrize("zeros", [False, True], ids=["two values", "three values"])
def test_the_kernel_answers_as_the_standard_operators_to_the_last_bit(zeros: bool, choose: Any, tmp_path: Path) -> None:
    net = Every(zeros).eval()
    image = torch.randn(1, net.places[-1][1], 1, 1)
    artifact = to_onnx(net, torch.zeros_like(image), tmp_path / "model.onnx")
    backend = OnnxRuntimeBits(threads=2)
    ours = backend.build(artifact, tmp_path)
    assert json.loads(ours.sidecar.read_text())["made"]["kernels"]["signed_conv"] == len(LAYERS)
    wanted = net.by_layer(answers(artifact.path.read_bytes(), {"image": image.numpy()})["logits"])
    names = [choose(place) for place in range(3)]
    assert names[-1] == "portable"
    for place in range(3):
        choose(place)
        with backend.open(ours) as infer:
            found = net.by_layer(infer(image.numpy()))
        for layer in LAYERS:
            assert np.array_equal(found[layer], wanted[layer]), f"{layer}, {names[place]}"
    choose(0)


def compilers_of_variants() -> Iterator[Any]:
    """How the variants of this processor, and of one for Arm, are compiled and run."""
    arm, emulator = map(shutil.which, ("aarch64-linux-gnu-g++", "qemu-aarch64-static"))
    reason = "no g++-aarch64-linux-gnu and qemu-user-static"
    # The others are compared with the standard operators, below.
    yield pytest.param([COMPILER], [], {"portable"}, marks=[needs_compiler, pytest.mark.slow], id="here")
    marks = [pytest.mark.skipif(arm is None or emulator is None, reason=reason), pytest.mark.slow]
    yield pytest.param([arm, "-static"], [emulator], {"neon", "portable"}, marks=marks, id="arm")


@pytest.mark.parametrize(("compiler", "runs", "least"), compilers_of_variants())
def test_every_variant_computes_the_operator_as_it_is_defined(
    compiler: list[str], runs: list[str], least: set[str], tmp_path: Path
) -> None:
    program = tmp_path / "variants"
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC", "-O3")]
    sources = ["-I", str(Path(kernels.__file__).parent), str(Path(__file__).with_name("kernel_variants.cpp"))]
    subprocess.run([*compiler, *flags, "-O1", *sources, "-o", str(program)], check=True, capture_output=True)
    told = subprocess.run([*runs, str(program)], capture_output=True, text=True, check=False)
    lines = [line.split() for line in told.stdout.splitlines()]
    assert {line[0] for line in lines} >= least and told.returncode == 0
    assert {line[-1] for line in lines} == {"same"}


@needs_compiler
def test_the_sidecar_says_which_kernel_and_the_runtime_that_it_ran(built: Library, tmp_path: Path) -> None:
    conv, size = LAYERS["narrow"]
    artifact = to_onnx(One(conv, False).eval(), torch.zeros(1, 16, *size), tmp_path / "model.onnx")
    ours = OnnxRuntimeBits().build(artifact, tmp_path)
    made = json.loads(ours.sidecar.read_text())["made"]["kernels"]
    assert made == {"signed_conv": 1, "sha256": built.sha256, "compiler": built.compiler}
    assert OnnxRuntimeBits().executed_precisions(Artifact.read(ours.path)) == {"1-bit": 1}


@needs_compiler
def test_layers_that_compare_one_image_alike_are_all_taken(tmp_path: Path) -> None:
    artifact = to_onnx(Beside().eval(), torch.zeros(1, 16, 6, 7), tmp_path / "model.onnx")
    assert [node.op_type for node in onnx.load(artifact.path).graph.node].count("GreaterOrEqual") == 1
    ours = OnnxRuntimeBits().build(artifact, tmp_path)
    assert json.loads(ours.sidecar.read_text())["made"]["kernels"]["signed_conv"] == 2
    image = np.random.default_rng(0).standard_normal((1, 16, 6, 7)).astype(np.float32)
    wanted = answers(artifact.path.read_bytes(), {"image": image})["logits"]
    with OnnxRuntimeBits().open(ours) as infer:
        assert np.array_equal(infer(image), wanted)


@needs_compiler
def test_a_file_without_convolutions_of_signs_is_refused(tmp_path: Path) -> None:
    artifact = to_onnx(nn.Conv2d(8, 8, 3), torch.zeros(1, 8, 9, 9), tmp_path / "model.onnx")
    with pytest.raises(BackendError, match=r"model\.onnx: no convolution in it reads signs"):
        OnnxRuntimeBits().build(artifact, tmp_path)


def test_without_a_compiler_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotHere, match=r"no C\+\+ compiler for the 1-bit kernel \(CXX names no-such-compiler"):
        library()


@needs_compiler
def test_a_library_that_is_not_what_was_compiled_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled: list[Path] = []

    def compile_(_: str, path: Path) -> None:
        compiled.append(path)
        path.write_bytes(b"ours")

    monkeypatch.setattr(kernels, "_compile", compile_)
    first = library()
    assert library() == first and len(compiled) == 1
    first.path.write_bytes(b"another's")
    assert library() == first and len(compiled) == 2
    first.path.unlink()
    first.path.symlink_to(tmp_path / "elsewhere.so")
    (tmp_path / "elsewhere.so").write_bytes(b"ours")
    library()
    assert len(compiled) == 3
