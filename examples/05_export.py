"""Write a network as ONNX, and prove that the file computes the same."""

from pathlib import Path

from compress.recipe import load
from export.backends.onnxruntime import OnnxRuntime
from export.backends.torch import infer_from_module
from export.to_onnx import parity, to_onnx

task = load(Path(__file__).with_name("phantom.yaml")).task()

artifact = to_onnx(task.net, task.example, Path("model.onnx"))
with OnnxRuntime(threads=1).open(artifact) as infer:
    difference = parity(infer_from_module(task.net), infer, task.probes())
print(f"{artifact.path}: {artifact.size_mb:.1f} MB, logits {difference}")
