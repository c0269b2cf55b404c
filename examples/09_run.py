"""Do all of it from a recipe: passes, artifacts, scores, times, verdicts, and a report."""

from pathlib import Path

from compress.commands.run import run
from compress.recipe import load

report = run(load(Path(__file__).with_name("phantom.yaml")), Path("runs/examples"))
for row in report.rows:
    print(f"{row.step} on {row.backend}: {row.status}, {row.size_mb} MB")
print(f"exit code {report.exit_code}; runs/examples/report.html")
