"""From torch to one ONNX file."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from zoo import example, image, made, quantized

import export.to_onnx
from compress.editing.calibration import calibrated
from export.artifact import Artifact
from export.backends.onnxruntime import RULES, OnnxRuntime
from export.backends.torch import infer_from_module
from export.capture import folded_graph
from export.errors import ExportError
from export.graph import Dynamic
from export.quantization.quantized import Quantized
from export.to_onnx import OPSETS, Style, metadata_of, parity, to_onnx

OPEN: list[tuple[Dynamic, ...]] = [(), ("batch",), ("size",), ("batch", "size")]
FILES = [
    pytest.param(axes, bits, marks=() if (bits, len(axes)) in ((32, 0), (8, 2)) else pytest.mark.slow)
    for axes in OPEN
    for bits in (32, 8)
]


def sha256(artifact: Artifact) -> str:
    return hashlib.sha256(artifact.path.read_bytes()).hexdigest()


def integer(name: str, dynamic: tuple[Dynamic, ...]) -> nn.Module:
    graph = folded_graph(made(name), example(name), dynamic)
    ranges = calibrated(graph, [image(1), image(2)], None, 2)
    return Quantized(graph, ranges).placed(RULES)


@pytest.mark.parametrize(("dynamic", "bits"), FILES)
def test_a_file_serves_the_axes_it_leaves_open(dynamic: tuple[Dynamic, ...], bits: int, tmp_path: Path) -> None:
    net = made("unet of one class") if bits == 32 else integer("unet of one class", dynamic)
    artifact = to_onnx(net, image(), tmp_path / "net.onnx", Style(dynamic=dynamic))
    batch, size = "batch" in dynamic, "size" in dynamic
    assert artifact.input.shape == (-1 if batch else 1, 3, *([-1, -1] if size else [32, 32]))
    assert artifact.output.shape == (-1 if batch else 1, 1, *([-1, -1] if size else [32, 32]))
    assert (artifact.input.name, artifact.output.name) == ("image", "logits")
    shapes = [(1, 3, 32, 32)] + [(3, 3, 32, 32)] * batch + [(1, 3, 48, 64)] * size
    with OnnxRuntime().open(artifact) as infer, torch.no_grad():
        for shape in shapes:
            x = image(5, *shape)
            ours, theirs = net(x).numpy(), infer(x.numpy())
            assert np.abs(ours - theirs).max() <= (1e-5 if bits == 32 else 0.06) * np.abs(ours).max()


def test_a_file_is_one_and_says_what_it_was_told(tmp_path: Path) -> None:
    told = {"segpress.classes": '["background", "nerve"]', "segpress.step": "baseline"}
    artifact = to_onnx(made("unet"), image(), tmp_path / "net.onnx", metadata=told)
    assert metadata_of(artifact.path) == told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.json"]
    assert onnx.load(artifact.path).producer_name == "segpress"
    assert Artifact.read(artifact.path) == artifact


@pytest.mark.parametrize("bits", [pytest.param(32, marks=pytest.mark.slow), 8])
def test_exporting_twice_gives_the_same_bytes_and_none_of_them_is_a_path(bits: int, tmp_path: Path) -> None:
    # Two axes open: the symbols they are named by must not depend on the process either.
    style = Style(dynamic=("batch", "size"))
    nets = [made("unet of one class") if bits == 32 else integer("unet of one class", style.dynamic) for _ in range(2)]
    first, second = (to_onnx(net, image(), tmp_path / f"{at}.onnx", style) for at, net in enumerate(nets))
    assert sha256(first) == sha256(second)
    data = first.path.read_bytes()
    places = [os.fsencode(Path(__file__).parent.parent), os.fsencode(sys.prefix), b".py", b"site-packages"]
    assert not [place for place in places if place in data]


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from zoo import image, quantized\n"
        "from export.backends.onnxruntime import RULES; from export.to_onnx import to_onnx\n"
        "to_onnx(quantized('pyramid').placed(RULES), image(), Path(sys.argv[1]))\n"
        # Torch's operators were read once and kept, from the first file on.
        "from torch.onnx._internal.exporter._registration import ONNXRegistry\n"
        "assert ONNXRegistry.from_torchlib.table.cache_info().misses == 1"
    )
    for seed in ("1", "2"):
        where = str(tmp_path / f"{seed}.onnx")
        root = Path(__file__).parent.parent
        subprocess.run(
            [sys.executable, "-c", code, where], check=True, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}
        )
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


@pytest.mark.parametrize(
    "opset", [pytest.param(opset, marks=() if opset in (18, 23) else pytest.mark.slow) for opset in OPSETS]
)
def test_every_opset_is_written_and_runs(opset: int, tmp_path: Path) -> None:
    net = quantized("residual").placed(RULES)
    artifact = to_onnx(net, image(), tmp_path / "net.onnx", Style(opset=opset))
    assert {entry.domain: entry.version for entry in onnx.load(artifact.path).opset_import} == {"": opset}
    with OnnxRuntime().open(artifact) as infer, torch.no_grad():
        ours = net(image()).numpy()
        assert np.abs(infer(image().numpy()) - ours).max() <= 0.06 * np.abs(ours).max()


@pytest.mark.parametrize("opset", [17, 24])
def test_another_opset_is_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} cannot be written; choose 18 to 23"):
        to_onnx(made("residual"), image(), tmp_path / "net.onnx", Style(opset=opset))


def test_a_network_too_large_for_one_file_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.to_onnx, "LARGEST_BYTES", 10_000)
    with pytest.raises(ExportError, match=r"Sequential has 0.00 GB of weights and one ONNX file holds 0.00 GB; prune"):
        to_onnx(made("residual"), image(), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


class Inverse(nn.Module):
    """An operation that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x)


class Dropped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (
            Inverse(),
            r"Inverse cannot be exported to ONNX: torch has no translation of aten.linalg_inv\w* \(\w+\)",
        ),
        (
            Dropped(),
            "Dropped cannot be captured by torch.export: .*depends on the values of its input, at test_to_onnx",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(
    net: nn.Module, why: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(ExportError, match=why) as refusal:
        to_onnx(net, image(), tmp_path / "net.onnx")
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_parity_counts_logits_and_pixels() -> None:
    net = made("unet")
    infer = infer_from_module(net)

    def shifted(x: np.ndarray) -> np.ndarray:
        logits = infer(x).copy()
        logits[0, :, 0, :8] = logits[0, ::-1, 0, :8]
        return logits

    images = [image(seed).numpy() for seed in (1, 2)]
    same = parity(infer, infer, images)
    assert (same.relative_error, same.flipped, same.cases) == (0, 0, 2)
    other = parity(infer, shifted, images)
    assert other.flipped == 8 / 32**2
    assert 0 < other.relative_error < 2
    with pytest.raises(ExportError, match="at least one case"):
        parity(infer, infer, [])
