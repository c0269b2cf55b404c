"""Other tools' post-training int8 of a float ONNX file, on a task's calibration cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.task import Task
from export.artifact import Artifact
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino


def nncf_artifact(onnx: Artifact, task: Task, folder: Path, threads: int) -> tuple[str, Artifact, OpenVino]:
    """NNCF's post-training quantization with its default settings."""
    import nncf
    import openvino as ov

    images = list(task.data.images(task.data.cases["calibration"]))
    model = ov.Core().read_model(onnx.path)
    made = nncf.quantize(model, nncf.Dataset(images, lambda image: {0: image}), subset_size=len(images))
    path = folder / "nncf.xml"
    ov.save_model(made, path, compress_to_fp16=False)
    artifact = replace(onnx, path=path, format="openvino", beside=(path.with_suffix(".bin").name,)).sealed()
    return "OpenVINO int8, NNCF post-training", artifact, OpenVino(threads=threads)


def onnxruntime_static(onnx: Artifact, task: Task, folder: Path, threads: int) -> tuple[str, Artifact, OnnxRuntime]:
    """ONNX Runtime's static quantization with its default settings."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = task.data.images(task.data.cases["calibration"])

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {onnx.input.name: image}

    path = folder / "static.onnx"
    quantize_static(onnx.path, path, Reader())
    artifact = replace(onnx, path=path).sealed()
    return "ONNX Runtime int8, quantize_static defaults", artifact, OnnxRuntime(threads=threads)
