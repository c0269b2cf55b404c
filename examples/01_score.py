"""Score a network in torch on the test cases: every metric, case by case and class by class."""

from pathlib import Path

from compress.recipe import load
from export.backends.torch import infer_from_module

task = load(Path(__file__).with_name("phantom.yaml")).task()

scores = task.measure(infer_from_module(task.net))
for name in scores.class_names:
    print(f"{name}: Dice {scores.class_mean(name, 'dice'):.3f}, HD95 {scores.class_mean(name, 'hd95'):.2f} mm")
