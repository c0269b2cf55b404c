"""A target checks whether its device is here, once for all runtimes; a backend or a device is one file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_fixtures import write_recipe
from whole_run import Done, gone_on
from zoo import image, made

import export.backends
import export.devices
from compress.cache import Cache, versions
from compress.commands.inspect import Where, inspect
from compress.errors import SegpressError
from compress.pipeline import foreseen
from compress.pipeline.build import Builder
from compress.pipeline.deployment import deployments, target_on
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import Stage
from compress.recipe import load, schema
from compress.storage.weights import load_net
from export.artifact import Artifact
from export.clock import Turn
from export.device import Device
from export.errors import NotHere
from export.registry import find_backend, find_device, is_for_signs, words
from export.target import LocalTarget
from export.to_onnx import Style, to_onnx

DEVICE = """
from export.device import Device

{NAME} = Device(name="{name}", title="a board far away", kind="cpu", model={model}, backends={backends})
"""

BACKEND = '''
"""ONNX Runtime under another name, with files and a version of its own."""

from dataclasses import dataclass, replace
from typing import ClassVar

from export.backends.onnxruntime import RULES, OnnxRuntime
from export.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Abacus:
    device: object
    threads: int
    rules: ClassVar = {rules}
    runs_on: ClassVar = frozenset({{"cpu"}})
    runs_modules: ClassVar = False
    builds_on_device: ClassVar = False
    libraries: ClassVar = ("pytest",)

    @staticmethod
    def check_installed():
        pass

    def build(self, onnx, folder):
        path = folder / f"{{onnx.path.stem}}.beads"
        write_bytes(path, onnx.path.read_bytes())
        write_bytes(path.with_suffix(".frame"), b"wood")
        return replace(onnx, path=path, format="abacus", beside=(path.with_suffix(".frame").name,)).sealed()

    def open(self, artifact):
        return OnnxRuntime(threads=self.threads).open(artifact)

    def flags(self):
        return {{"beads": 10}}
'''

Added = Callable[[str, str, str], None]


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Added]:
    """Adds a file to `export.backends` or `export.devices`, as one would that lies in the folder."""
    made: list[str] = []
    packages = {"backends": export.backends, "devices": export.devices}
    for name, package in packages.items():
        (tmp_path / name).mkdir()
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / name)])

    def add(folder: str, word: str, text: str) -> None:
        (tmp_path / folder / f"{word}.py").write_text(text)
        made.append(f"export.{folder}.{word}")

    versions.cache_clear()
    yield add
    versions.cache_clear()
    for name in made:
        sys.modules.pop(name, None)
        package = packages[name.split(".")[1]]
        vars(package).pop(name.rpartition(".")[2], None)


def device(name: str, model: str | None, *backends: str) -> str:
    """A device's file; with a model that the board of this host is not."""
    return DEVICE.format(NAME=name.upper(), name=name, model=repr(model), backends=backends)


def report(done: Done, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The rows of the finished run gone on with."""
    gone_on(done, folder, **changes)
    rows: list[dict[str, Any]] = json.loads((folder / "out" / "report.json").read_text())["rows"]
    return rows


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.device.cuda_capabilities", list)


@pytest.mark.parametrize("word", words("export.backends"))
@pytest.mark.parametrize("name", ["rtx_30", "orin_nano"])
@pytest.mark.usefixtures("without_gpu")
def test_no_runtime_opens_on_a_device_that_is_not_here(name: str, word: str) -> None:
    target = target_on(find_device(name), 1)
    with pytest.raises(NotHere, match="no NVIDIA driver" if name == "rtx_30" else "is another machine"):
        target.open(word)
    with pytest.raises(NotHere):
        target.peak_memory(word, made_artifact())


def made_artifact() -> Artifact:
    return Artifact(path=Path("net"), format="onnx", input=None, output=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", words("export.backends"))
def test_a_runtime_opens_on_this_host_where_it_computes_on_its_processor(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.device.cuda_capabilities", lambda: ["8.6"])
    for kind in ("cpu", "cuda"):
        here = Device(name="here", title="this board", kind=kind, backends=(word,))  # type: ignore[arg-type]
        target = LocalTarget(device=here, threads=1, load=load_net)
        if kind in find_backend(word).runs_on:
            assert target.open(word).device == here
        else:
            # It would compute on another processor, whose time would be told as this one's.
            with pytest.raises(NotHere, match=f"^{word} does not run on this board$"):
                target.open(word)


def test_a_turn_is_timed_on_its_images_in_order() -> None:
    seen: list[float] = []

    def infer(image_BCHW: np.ndarray) -> np.ndarray:
        seen.append(float(image_BCHW.max()))
        return image_BCHW

    images = [np.full((1, 1, 2, 2), value, np.float32) for value in (0, 1, 2)]
    target = target_on(find_device("cpu"), 1)
    assert len(target.time(infer, images, Turn(first=2, count=3, untimed=1))) == 3
    assert seen == [2, 2, 0, 1]
    assert target.time(infer, images, Turn(first=0, count=3, seconds=0)) == []
    assert target.is_this_host and target.facts()["threads"] == 1 and target.conditions()["load"] >= 0


def test_a_backend_and_a_device_are_a_file_each_and_what_is_not_here_is_built_and_not_measured(
    added: Added, tmp_path: Path, done: Done
) -> None:
    added("backends", "abacus", BACKEND.format(rules="RULES"))
    added("devices", "desk", device("desk", None, "abacus", "torch"))
    added("devices", "far", device("far", "Far", "torch", "onnxruntime", "openvino", "abacus"))
    gates = [{"size_mb": {"at_most": 9, "device": "desk", "backend": "abacus"}}]
    rows = report(done, tmp_path, devices=["desk", "far"], gates=gates, scoring={"others": 2})
    assert {(row["step"], row["backend"], row["device"]) for row in rows} == {
        *(("baseline", word, "desk") for word in ("torch", "abacus")),
        *(("baseline", word, "far") for word in ("torch", "onnxruntime", "openvino", "abacus")),
        ("01-int8", "abacus", "desk"),
        *(("01-int8", word, "far") for word in ("onnxruntime", "openvino", "abacus")),
    }
    for row in rows:
        assert row["size_mb"] > 0
        if row["device"] == "far":
            assert row["status"] == "built" and "a board far away is another machine" in row["reason"]
            measures = ("scores", "latency_ms", "parity", "peak_memory_mb", "processors")
            assert all(row[measure] is None for measure in measures)
        else:
            assert row["status"] == "measured" and row["latency_ms"]["n"] > 0 and row["scores"]["dice"] > 0.5
        if row["backend"] == "abacus":
            assert row["artifact"].endswith(".beads")
            assert {Path(name).suffix for name in row["sha256"]} == {".beads", ".frame"}
            assert (row["layers"] is not None) == (row["step"] == "01-int8")
            assert row["flags"] == ({"beads": 10} if row["device"] == "desk" else {})
    assert versions()["pytest"]


def test_what_is_not_here_is_foreseen(added: Added, tmp_path: Path, recipe: dict[str, Any]) -> None:
    added("devices", "far", device("far", "Far", "torch", "onnxruntime", "openvino", "reference"))
    spots = foreseen.spots(load(write_recipe(tmp_path, {**recipe, "devices": ["far"]})))
    assert len(spots) == 4
    assert all("another machine" in str(spot.unmeasured) and spot.unbuilt is None for spot in spots)


@pytest.mark.parametrize("rules", ["RULES", "None"])
def test_nothing_quantized_is_built_for_a_runtime_that_takes_none(
    rules: str, added: Added, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    added("backends", "abacus", BACKEND.format(rules=rules))
    added("devices", "desk", device("desk", None, "abacus"))
    gates = [{"size_mb": {"at_most": 9, "backend": "abacus"}}]
    loaded = load(write_recipe(tmp_path, {**recipe, "devices": ["desk"], "gates": gates}))
    scene = foreseen.scene(loaded, foreseen.spots(loaded), None, None)
    told = [line for line in foreseen.contradictions(loaded, scene) if "after int8 there is no abacus artifact" in line]
    assert len(told) == (rules == "None")
    (desk,) = deployments([find_device("desk")], 1)
    integers = Stage(
        name="01-int8", key="", path=Path("net"), params=1, macs=1, seconds=0.0, notes=(), precision="integers"
    )
    with PeakMemory() as peaks:
        builder = Builder(loaded.task(), Style(), Cache(tmp_path / "out"), print, peaks)
        if rules == "None":
            assert builder.build(integers, desk) is None
    assert (desk.rules is None) == (rules == "None")


def test_a_backend_and_a_device_are_in_the_schema_and_in_what_inspect_offers(added: Added, weights: Path) -> None:
    added("backends", "abacus", BACKEND.format(rules="None"))
    added("devices", "desk", device("desk", None, "abacus"))
    told = schema()["properties"]
    assert "desk" in told["devices"]["items"]["anyOf"][-1]["enum"]
    for steps in (told["gates"], told["passes"]):
        options = [one["properties"] for one in steps["items"]["anyOf"] if "properties" in one]
        given = [each for one in options for word in one.values() for each in [word["properties"]] if "device" in each]
        assert given and all("desk" in each["device"]["anyOf"][0]["enum"] for each in given)
        # int8 chooses for every runtime of a device.
        assert all("abacus" in each["backend"]["enum"] for each in given if "backend" in each)
    with pytest.raises(
        SegpressError,
        match="abacus does not tell how long its layers take; choose onnxruntime or onnxruntime_bits or on",
    ):
        inspect(weights, Where(backend="abacus", device="desk"))


def test_every_deployment_of_every_device_says_what_it_is() -> None:
    for each in deployments([find_device(word) for word in words("export.devices")], 3):
        assert each.target.threads == 3
        assert each.device == find_device(each.device.name)
        assert each.rules is None or each.rules.pairs_in_16_bits <= (not each.device.exact_sums)
        assert all(isinstance(library, str) for library in each.kind.libraries)


@pytest.mark.parametrize(
    "word", [word for word in find_device("cpu").backends if word != "torch" and not is_for_signs(word)]
)
def test_what_a_target_builds_it_opens(word: str, tmp_path: Path) -> None:
    target = target_on(find_device("cpu"), 1)
    built = target.build(word, to_onnx(made("unet of one class"), image(), tmp_path / "net.onnx"), tmp_path)
    with target.open(word).open(built) as infer:
        assert infer(image(1).numpy()).shape == (1, 1, 32, 32)
