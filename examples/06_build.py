"""Build a quantized network for two runtimes, each with the file that it computes fastest, and score both."""

from pathlib import Path

from compress.passes.int8 import Int8
from compress.recipe import load
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.to_onnx import to_onnx

task = load(Path(__file__).with_name("phantom.yaml")).task()

quantized = Int8(calibrate=4)(task.net, task)
for backend in (OnnxRuntime(), OpenVino()):
    word = type(backend).__name__.lower()
    onnx = to_onnx(quantized.placed(backend.rules), task.example, Path(f"{word}.onnx"))
    with backend.open(backend.build(onnx, Path())) as infer:
        print(f"{word}: Dice {task.measure(infer).mean('dice'):.3f}, {onnx.size_mb:.2f} MB")
