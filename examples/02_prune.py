"""Take channels out of a network: what is left is an ordinary, smaller module."""

from pathlib import Path

from compress.measure.complexity import cost_of
from compress.passes.prune import Prune
from compress.recipe import load
from export.backends.torch import infer_from_module

task = load(Path(__file__).with_name("phantom.yaml")).task()

smaller = Prune(ratio=0.25)(task.net, task)
before, after = cost_of(task.net, task.example), cost_of(smaller, task.example)
print(f"{before.params:,} -> {after.params:,} parameters, {before.macs / after.macs:.2f} times fewer operations")
print(f"Dice before it is trained again: {task.measure(infer_from_module(smaller)).mean('dice'):.3f}")
