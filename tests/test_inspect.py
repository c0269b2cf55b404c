"""`compress inspect`: what it takes, what it says, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from integer_layers import Conv, write
from rich.console import Console
from shared_fixtures import write_recipe
from zoo import image, made

from compress.commands.inspect import Inspection, Where, inspect, surprises
from compress.errors import SegpressError
from compress.measure.latency import Samples
from compress.report.inspection import show
from export.layers import Layer
from export.to_onnx import Style, to_onnx


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few runs: the numbers are not looked at."""
    monkeypatch.setattr(
        "compress.commands.inspect.in_turns", lambda runs, *_: {name: Samples(times_ms=[1.0]) for name in runs}
    )


FEW = Where(runs=2)


def printed(found: Inspection, drops: dict[str, float | None] | None = None) -> str:
    console = Console(width=110)
    with console.capture() as capture:
        show(found.as_dict(), surprises(found), drops, console)
    return capture.get()


def test_a_recipe_is_inspected_without_its_data(tmp_path: Path, recipe: dict) -> None:
    recipe["data"]["folder"]["root"] = str(tmp_path)
    found = inspect(write_recipe(tmp_path, recipe), FEW)
    assert found.input == (1, 1, 32, 32)
    assert "encoder.0.0" in [layer.name for layer in found.layers]
    assert found.outside_us > 0
    assert any(not group.prunable for group in found.groups)
    text = " ".join(printed(found, {"encoder.0.0": 0.25}).split())
    assert "encoder.0.0 Conv 3x3 1x8x32x32" in text
    assert "outside layers" in text
    assert "+0.2500 yes" in text
    record = json.loads(json.dumps(found.as_dict()))
    assert record["total"]["macs"] == sum(layer["macs"] for layer in record["layers"])


def test_a_recipe_without_weights_is_inspected_and_says_so(tmp_path: Path, recipe: dict) -> None:
    del recipe["network"]["unet"]["weights"]
    found = inspect(write_recipe(tmp_path, recipe), FEW)
    assert "gives no weights" in found.notes[0]


def test_a_saved_network_takes_its_own_size_or_another(weights: Path) -> None:
    assert inspect(weights, FEW).input == (1, 1, 32, 32)
    assert inspect(weights, Where(runs=2, size=(64, 48), backend="openvino")).input == (1, 1, 64, 48)
    with pytest.raises(SegpressError, match="input is 30x32; this network needs multiples of 4: pad to 32x32"):
        inspect(weights, Where(size=(30, 32)))


def test_an_onnx_file_is_inspected_with_or_without_a_sidecar(tmp_path: Path) -> None:
    net = made("unet of one class")
    file = to_onnx(net, image(), tmp_path / "ours.onnx").path
    theirs = tmp_path / "theirs" / "net.onnx"
    theirs.parent.mkdir()
    shutil.copy(file, theirs)
    ours, other = inspect(file, FEW), inspect(theirs, FEW)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in other.layers]
    assert ours.groups == ()
    assert [path.name for path in theirs.parent.iterdir()] == ["net.onnx"], "nothing is written beside it"
    with pytest.raises(SegpressError, match="its input is 32x32, which --size cannot change"):
        inspect(file, Where(size=(64, 64)))
    free = to_onnx(net, image(), tmp_path / "open.onnx", Style(dynamic=("size",))).path
    with pytest.raises(SegpressError, match="any size; give --size, such as 256x256"):
        inspect(free, FEW)
    assert inspect(free, Where(runs=2, size=(64, 64))).input == (1, 3, 64, 64)


def test_a_changed_artifact_is_not_run(tmp_path: Path) -> None:
    file = to_onnx(made("unet of one class"), image(), tmp_path / "net.onnx").path
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(SegpressError):
        inspect(file, FEW)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (Where(backend="onnxrt"), "no backend 'onnxrt'; there are "),
        (Where(device="gpu"), "no device 'gpu'; there are "),
        (Where(device="cpu@a b"), "--device cpu@a b: 'a b' is no host: "),
        (Where(device="cpu@"), "--device cpu@: '' is no host: "),
        (Where(device="cpu+dla0"), r"--device cpu\+dla0: dla: this host's CPU has no DLA core"),
        (
            Where(device="orin_nano@here"),
            "is another machine; say how it is reached: orin_nano: {at: HOST} in a recipe",
        ),
        (
            Where(backend="torch"),
            "torch does not tell how long its layers take; choose onnxruntime or onnxruntime_bits or",
        ),
        (Where(backend="openvino", device="rtx_40"), "openvino does not run on rtx_40"),
    ],
)
def test_what_cannot_be_timed_is_refused(weights: Path, where: Where, told: str) -> None:
    with pytest.raises(SegpressError, match=told):
        inspect(weights, where)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"x")
    with pytest.raises(SegpressError, match=r"inspect takes a recipe \(.yaml\), a saved network"):
        inspect(tmp_path / "net.pt", FEW)
    with pytest.raises(SegpressError, match="no such file"):
        inspect(tmp_path / "nowhere.onnx", FEW)


def test_where_the_time_is_not_where_the_macs_are_is_said() -> None:
    def layer(name: str, macs: int, microseconds: float) -> Layer:
        return Layer(name=name, kind="Conv", shape=None, macs=macs, params=1, bits=32, microseconds=microseconds)

    found = Inspection(
        model="x",
        backend="onnxruntime",
        device="cpu",
        threads=1,
        input=(1, 1, 8, 8),
        layers=[layer("deep", 98, 10), layer("first", 2, 70)],
        own={"Reorder": 5.0},
        whole_us=100.0,
        latency_ms=0.1,
        groups=(),
        pair_sums=None,
        notes=(),
    )
    assert surprises(found) == ["first takes 70% of the time and has 2.0% of the MACs"]
    assert found.outside_us == 20
    assert "0.0200 ms lie outside layers (of these Reorder 0.00500 ms)" in " ".join(printed(found).split())


def test_layers_that_a_cpu_without_vnni_cuts_off_are_listed(tmp_path: Path) -> None:
    found = inspect(write(Conv(inside=16, outside=8), tmp_path / "net.onnx").path, FEW)
    assert found.pair_sums is not None and found.pair_sums.unsafe == {"layer": 8}
    said = " ".join(printed(found).split())
    assert "Without VNNI, 1 of its 1 integer layers can be cut off at 16 bits and answer otherwise: layer (8 ch" in said
