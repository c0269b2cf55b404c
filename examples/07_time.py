"""Time two networks in turns, warm, in one run: the only way in which times on a busy host can be compared."""

from pathlib import Path

from compress.measure.latency import Timing, interleaved
from compress.recipe import load
from export.backends.onnxruntime import OnnxRuntime
from export.backends.torch import infer_from_module
from export.to_onnx import to_onnx

task = load(Path(__file__).with_name("phantom.yaml")).task()
images = [task.data.image(case)[None] for case in task.data.cases["test"]]

torch_infer = infer_from_module(task.net)
with OnnxRuntime().open(to_onnx(task.net, task.example, Path("model.onnx"))) as onnx_infer:
    runs = {
        "torch": lambda number: torch_infer(images[number % len(images)]),
        "onnxruntime": lambda number: onnx_infer(images[number % len(images)]),
    }
    samples = interleaved(runs, Timing(samples=20, seconds=2, warm_up=0.1), seed=7)
for name, sampled in samples.items():
    print(f"{name}: p50 {sampled.as_dict()['p50']:.1f} ms of {sampled.as_dict()['n']} runs")
