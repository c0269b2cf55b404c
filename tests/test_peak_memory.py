"""Peak memory is that of a process of its own, which loads the artifact and runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress.errors import SurroundingsError
from compress.peak_memory import peak_memory_mb
from compress.weights import load_net
from export.artifact import Artifact, Port
from export.device import find_device, named, words
from export.to_onnx import to_onnx

CPU = find_device("cpu")


@pytest.fixture(scope="module")
def onnx(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return to_onnx(load_net(weights), torch.zeros(1, 1, 32, 32), tmp_path_factory.mktemp("peak") / "model.onnx")


@pytest.mark.parametrize("word", CPU.backends)
def test_a_process_that_runs_the_artifact_on_this_runtime_needs_some(
    word: str, onnx: Artifact, weights: Path, tmp_path: Path
) -> None:
    assert word in words("export.backends")
    if word == "torch":
        image, logits = (Port(name=name, shape=(1, 1, 32, 32), dtype="float") for name in ("image", "logits"))
        artifact = Artifact(path=weights, format="torch", input=image, output=logits)
    else:
        artifact = named("export.backends", word)(device=CPU, threads=1).build(onnx, tmp_path)
    found = peak_memory_mb(word, artifact, CPU, 1)
    assert 30 <= found < 2000
    assert found % 10 == 0, "rounded, since it varies by a few from run to run"


def test_a_process_that_dies_is_told_with_what_it_said_last(onnx: Artifact, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    gone = Artifact(path=tmp_path / "model.onnx", format="onnx", input=onnx.input, output=onnx.output)
    with pytest.raises(SurroundingsError, match=r"model\.onnx: the process that measures its memory died \(.*Error"):
        peak_memory_mb("onnxruntime", gone, CPU, 1)
