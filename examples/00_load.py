"""Load a trained network, and see what it costs to compute."""

from pathlib import Path

from compress.measure.complexity import cost_of
from compress.recipe import load

recipe = load(Path(__file__).with_name("phantom.yaml"))
task = recipe.task()

cost = cost_of(task.net, task.example)
print(f"{recipe.name}: {cost.params:,} parameters, {cost.macs / 1e9:.2f} G multiply-accumulates for one image")
