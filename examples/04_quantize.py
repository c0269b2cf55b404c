"""Calibrate a network for 8-bit integers, and see which layers each runtime computes in them."""

from pathlib import Path

from compress.passes.int8 import Int8
from compress.recipe import load
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino

task = load(Path(__file__).with_name("phantom.yaml")).task()

quantized = Int8(calibrate=4)(task.net, task)
print(f"onnxruntime: {quantized.layers(OnnxRuntime.rules)}")
print(f"openvino: {quantized.layers(OpenVino.rules)}")
