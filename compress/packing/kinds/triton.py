"""A model repository for NVIDIA's Triton Inference Server: one model that takes an image and gives a mask.

It is an ensemble of three: `NAME_before` (Python backend), `NAME_network` (the artifact, in the backend of its runtime)
and `NAME_after` (Python backend). The Python backend needs NumPy, and SciPy where `postprocess` has steps.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from compress.data.dataset.cases import MaskArray
from compress.packing.contents import RUNNER, put_program
from compress.packing.emulators.triton import served
from compress.packing.source import Source
from export.files import make_folder

FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
"""What each backend of Triton's calls a model's file."""


class Triton:
    """`tritonserver --model-repository=FOLDER/model_repository`."""

    backends: ClassVar[tuple[str, ...]] = tuple(FILES)
    deep: ClassVar[bool] = False

    @staticmethod
    def write(source: Source, told: Mapping[str, Any], folder: Path) -> str:
        """Everything into an empty folder; how it is served, in a sentence."""
        repository, name, runtime = folder / "model_repository", name_of(told), told["model"]["runtime"]
        channels = told["preprocess"]["channels"]
        shape, answer = told["model"]["input"]["shape"], told["model"]["output"]["shape"]
        image = ("IMAGE", "UINT8", [-1, -1, channels])
        inputs, size, logits, mask = (
            ("INPUT", "FP32", shape),
            ("SIZE", "INT64", [2]),
            ("LOGITS", "FP32", answer),
            ("MASK", "UINT8", [-1, -1]),
        )
        network = [(told["model"][port]["name"], "FP32", told["model"][port]["shape"]) for port in ("input", "output")]
        _python(repository / f"{name}_before", "triton_before.py", told, [image], [inputs, size])
        _python(repository / f"{name}_after", "triton_after.py", told, [logits, size], [mask])
        at = _model(repository / f"{name}_network", _config(runtime, network[:1], network[1:]))
        _put(source, at, FILES[runtime])
        ensemble = _ensemble(name, network[0][0], network[1][0])
        _model(repository / name, _config("", [image], [mask], ensemble))
        # A folder of a version must be there, and Git and archives leave empty ones out.
        (repository / name / "1" / ".keep").write_bytes(b"")
        return f"tritonserver --model-repository={folder.name}/model_repository; then send IMAGE to {name}"

    @staticmethod
    def masks(folder: Path, images: Sequence[Path], scratch: Path) -> list[MaskArray]:
        """What the repository answers for images (HW each), served as Triton serves it."""
        return served(folder / "model_repository", images, scratch)


def name_of(told: Mapping[str, Any]) -> str:
    """The model's name: letters, digits, - and _ alone."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", told["name"]).strip("-") or "segpress"


Port = tuple[str, str, Sequence[int]]
"""Name, Triton's word for its type, and its axes; -1 for any."""


def _python(
    folder: Path, program: str, told: Mapping[str, Any], inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    at = _model(folder, _config("python", inputs, outputs))
    put_program(told, at)
    shutil.copyfile(RUNNER / program, at / "model.py")


def _model(folder: Path, config: str) -> Path:
    """The folder of its only version, beside its config.pbtxt."""
    at = make_folder(folder / "1")
    (folder / "config.pbtxt").write_text(f'name: "{folder.name}"\n{config}')
    return at


def _put(source: Source, folder: Path, name: str) -> None:
    """The artifact's files, under the name that the backend reads; an IR's weights go by that of their graph."""
    for file in source.artifact.files:
        shutil.copyfile(file, folder / Path(name).with_suffix(file.suffix))


def _config(backend: str, inputs: Sequence[Port], outputs: Sequence[Port], rest: str = "") -> str:
    """The text of a config.pbtxt, but for the name (model_config.proto)."""
    served_by = 'platform: "ensemble"' if not backend else f'backend: "{backend}"'
    cpu = "instance_group [{ kind: KIND_CPU }]\n" if backend else ""
    ports = "".join(_ports(word, each) for word, each in (("input", inputs), ("output", outputs)))
    return f"{served_by}\nmax_batch_size: 0\n{ports}{cpu}{rest}"


def _ports(word: str, ports: Sequence[Port]) -> str:
    lines = [f'  {{ name: "{name}" data_type: TYPE_{kind} dims: {list(dims)} }}' for name, kind, dims in ports]
    return f"{word} [\n" + ",\n".join(lines) + "\n]\n"


def _ensemble(name: str, into: str, out: str) -> str:
    """The steps: which tensor of the ensemble each port of a model is."""
    steps = (
        (f"{name}_before", {"IMAGE": "IMAGE"}, {"INPUT": "INPUT", "SIZE": "SIZE"}),
        (f"{name}_network", {into: "INPUT"}, {out: "LOGITS"}),
        (f"{name}_after", {"LOGITS": "LOGITS", "SIZE": "SIZE"}, {"MASK": "MASK"}),
    )
    lines = []
    for model, inputs, outputs in steps:
        maps = [("input_map", each) for each in inputs.items()] + [("output_map", each) for each in outputs.items()]
        said = " ".join(f'{word} {{ key: "{port}" value: "{tensor}" }}' for word, (port, tensor) in maps)
        lines.append(f'    {{ model_name: "{model}" model_version: -1 {said} }}')
    return "ensemble_scheduling {\n  step [\n" + ",\n".join(lines) + "\n  ]\n}\n"
