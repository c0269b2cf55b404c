"""The story of a run: passes, then artifacts, then measurements, then judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from compress.cache import Cache, claimed, code_key, key_of, versions
from compress.cluster import ALONE, Workers
from compress.data.dataset.cases import ROLES, Role
from compress.data.dataset.split import split_table
from compress.data.dataset.subgroups import subgroups
from compress.errors import ExportError, NotHere, PassError
from compress.gates.judging.drop_record import baseline_drop, step_drop
from compress.gates.judging.judge import judge
from compress.measure.row import Row
from compress.networks.foreign.notes import note_on
from compress.pipeline.baseline_skill import refuse_without
from compress.pipeline.build import Build, Builder
from compress.pipeline.deployment import Deployment, deployments, reached
from compress.pipeline.first_key import first_key, weights_of
from compress.pipeline.log import logged
from compress.pipeline.manifest import seal, unseal
from compress.pipeline.measure import measured
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.provenance import dated
from compress.pipeline.slower import with_slow_layers
from compress.pipeline.stages import Stage, baseline, chain, tidy
from compress.pipeline.worst_cases import worst_cases
from compress.recipe import Recipe
from compress.report.report import Report
from compress.task import Task
from export.files import make_folder, sha256, write_bytes, write_json
from export.host import host_facts, usable_cpus
from export.registry import is_for_signs
from export.to_onnx import Style

Log = Callable[[str], None]


def run(recipe: Recipe, folder: Path, *, fresh: bool = False, say: Log = print, workers: Workers = ALONE) -> Report:
    """Do what a recipe says, in `folder`; go on from what is already done there unless `fresh`.

    Writes report.json, report.md, report.html, the artifacts, a log, and last the manifest of them all. Every finished
    step is kept, so a run that was interrupted continues, and a run repeated is answered from what is kept.

    Args:
        workers: processes in which a pass may have its work done at once.
    """
    deployed = deployments(recipe.devices, recipe.latency.threads)
    with claimed(folder, fresh=fresh), logged(folder, say) as log, reached(deployed, log):
        unseal(folder)
        cache = Cache(folder)
        task = replace(recipe.task(), workers=workers)
        log(f"normalization is that of {recipe.normalization_from()}: {task.data.normalization}")
        content, notes = _checked(task, recipe, cache, log)
        note_on(task.net, *notes, *_on_split(recipe, task, folder))

        with PeakMemory() as peaks:
            builder = Builder(task, Style(opset=recipe.opset, dynamic=recipe.dynamic), cache, log, peaks)
            begun = baseline(task, first_key(recipe, task), cache, log)
            stages = chain(recipe.passes, begun, task, cache, log)
            beside, refused = _compared(recipe, begun, stages, task, cache, log)
            shown = [begun, *(compared[-1] for compared in beside.values()), *stages]
            builds = builder.each(shown, deployed)
            measures = measured(builds, task, recipe.scoring, recipe.latency, peaks, cache, log)

        rows = with_drops(_with_refused(measures, refused, deployed), [begun, *stages])
        rows = with_slow_layers(rows, builds, [begun, *stages], task, cache)
        report = Report(
            name=recipe.name,
            seed=recipe.seed,
            recipe=recipe.text,
            versions=versions(),
            host=host_facts(recipe.latency.threads or usable_cpus()),
            cases={role: len(cases) for role, cases in task.data.cases.items()},
            data=_data(recipe, task, rows),
            steps=[*_steps(begun, stages, beside, recipe), *_refused_steps(refused, recipe)],
            rows=rows,
            gates=judge(recipe.gates, rows),
            hashes={"data": content, "weights": sha256(weights_of(recipe))},
        )
        report = dated(report, recipe.source, cache)
        publish(report, builds, task, cache)
        seal(folder)
        return report


def _compared(
    recipe: Recipe, begun: Stage, stages: Sequence[Stage], task: Task, cache: Cache, log: Log
) -> tuple[dict[str, list[Stage]], dict[str, str]]:
    """The chains that the recipe's own is compared with; of those that a pass refuses, why: they cost a row, no run."""
    beside: dict[str, list[Stage]] = {}
    refused: dict[str, str] = {}
    for title, passes in recipe.compare.items():
        done = [*stages, *(stage for others in beside.values() for stage in others)]
        try:
            beside[title] = chain(passes, begun, task, cache, log, title, done)
        except (PassError, ExportError, NotHere) as error:
            refused[title] = str(error)
            log(f"{title}: refused: {error}")
    tidy(cache)
    return beside, refused


def _with_refused(rows: Sequence[Row], refused: Mapping[str, str], deployed: Sequence[Deployment]) -> list[Row]:
    """The rows, after those of the baseline one on every deployment for each chain that was refused."""
    absent = [
        Row(
            step=title,
            backend=at.backend,
            device=at.device.name,
            status="not measured",
            reason=why,
            params=None,
            macs=None,
        )
        for title, why in refused.items()
        for at in deployed
        if not is_for_signs(at.backend)
    ]
    first = [row for row in rows if row.step == "baseline"]
    return [*first, *absent, *(row for row in rows if row.step != "baseline")]


def _refused_steps(refused: Mapping[str, str], recipe: Recipe) -> list[dict[str, Any]]:
    sizes = dict.fromkeys(("params", "macs", "seconds"))
    given = {title: recipe.text["compare"][title][-1] for title in refused}
    return [
        {"step": title, "chain": title, **_word_of(given[title]), **sizes, "notes": [why]}
        for title, why in refused.items()
    ]


def publish(report: Report, builds: list[Build], task: Task, cache: Cache) -> None:
    """Write the report in its three forms, unless the very same one lies there already."""

    def write() -> list[str]:
        from compress.report.html import to_html
        from compress.report.markdown import to_markdown

        record = report.as_dict()
        pages = {
            "report.html": to_html(record, worst_cases(builds, report.rows, task)),
            "report.md": to_markdown(record),
        }
        for name, page in pages.items():
            write_bytes(cache.folder / name, page.encode())
        # Last, so that a report.json that is there belongs to pages that are there.
        write_json(cache.folder / "report.json", record)
        return ["report.json", *pages]

    there = all((cache.folder / name).is_file() for name in ("report.json", "report.md", "report.html"))
    written = None if there else write()
    cache.value("report", key_of(report.as_dict()), lambda: written or write())


def with_drops(rows: list[Row], stages: Sequence[Stage]) -> list[Row]:
    """The rows, each with its drop from the baseline and from the step before it on the same runtime."""
    before = {after.name: before.name for before, after in pairwise(stages)}
    return [
        replace(
            row, dice_drop=baseline_drop(rows, row), step_drop=step_drop(rows, row, before.get(row.step, "baseline"))
        )
        for row in rows
    ]


def _checked(task: Task, recipe: Recipe, cache: Cache, log: Log) -> tuple[str, list[str]]:
    """Look at every file once, and at whether the baseline finds anything, before hours are spent on what either would
    have refused; returns the data's SHA-256 and what is odd.
    """
    judged = any(gate.reads_scores for _, gate in recipe.gates)
    subgroups(task.data.cases["test"], recipe.scoring.subgroups)

    def look() -> tuple[str, list[str]]:
        notes = task.check()
        return task.data.sha256(), notes

    def skill() -> bool:
        refuse_without(task, judged, log)
        return True

    content, notes = cache.value("data", key_of(code_key(), task.data.fingerprint()), look)
    cache.value("skill", key_of(first_key(recipe, task), judged, task.postprocess), skill)
    return content, [*notes, *_on_restoring(task)]


def _on_split(recipe: Recipe, task: Task, folder: Path) -> list[str]:
    """How the roles of cases were drawn, where no table names them; which they are is kept with the run."""
    split = getattr(recipe.data, "split", None)
    if split is None:
        return []
    table = split_table(task.data.cases, recipe.data.root)
    write_bytes(make_folder(folder / "kept") / "split.csv", table.encode())
    return [f"the split was {split}; kept/split.csv names the role of every case"]


def _on_restoring(task: Task) -> list[str]:
    """How answers get back to the size of images that are of another size than the network's input."""
    data, fit = task.data, task.data.fit
    if fit.how == "nnunet":
        return ["its answer is brought back to the size of the volume as nnU-Net does: by its logits"]
    sizes = ((data.size_of(case), data.spacing_of(case)) for case in data.cases["test"])
    if all(fit.inner(original, spacing) == original for original, spacing in sizes):
        return []
    how = {"probabilities": "by its probabilities, interpolated linearly", "labels": "by its labels, the nearest"}
    return [f"its answer is brought back to the size of the image {how[fit.restored_from]}"]


def _data(recipe: Recipe, task: Task, rows: list[Row]) -> dict[str, Any]:
    passes = [*recipe.passes, *(each for passes in recipe.compare.values() for each in passes)]
    words = {role: [word for word, step in passes if role in step.uses] for role in ROLES}

    def used(role: Role, otherwise: str) -> str:
        return f"used by {', '.join(dict.fromkeys(words[role]))}" if words[role] else otherwise

    patients = any(case.patient for case in task.data.cases["test"])
    return {
        "source": task.data.source,
        "classes": list(task.data.class_names),
        "unit": task.data.reader.unit,
        "sizes_in": _size_unit(task),
        "tolerance": task.data.tolerance,
        "restore": "logits" if task.data.fit.how == "nnunet" else task.data.fit.restored_from,
        "logits": task.logits,
        **({"postprocess": task.postprocess.as_list()} if task.postprocess.steps else {}),
        "roles": {
            "train": used("train", "not used by this run: no pass trains"),
            "calibration": f"{used('calibration', 'set aside, not used')}, and to compare artifacts with torch; "
            "trained on by no pass",
            "val": used("val", "not used for any choice in this run"),
            "test": "every score, drop and latency in this report; seen by no pass",
        },
        "normalization": {**asdict(task.data.normalization), "from": recipe.normalization_from()},
        "independent": "patient" if patients else "case",
        "test_looks": sum(row.status == "measured" for row in rows),
        **({"subgroups": subgroups(task.data.cases["test"], apart)} if (apart := recipe.scoring.subgroups) else {}),
    }


def _size_unit(task: Task) -> str:
    """What areas and volumes are counted in."""
    dims = len(task.data.fit.size)
    if task.data.reader.unit == "mm":
        return "mm²" if dims == 2 else "mm³"
    return "pixels" if dims == 2 else "voxels"


def _steps(
    begun: Stage, stages: Sequence[Stage], beside: Mapping[str, Sequence[Stage]], recipe: Recipe
) -> list[dict[str, Any]]:
    """What each step was told, what it said, and how long it took: the recipe's own, then those compared with."""
    steps = [_step(begun, "baseline", None)]
    steps += [_step(stage, given, None) for stage, given in zip(stages, recipe.text.get("passes", []), strict=True)]
    for title, compared in beside.items():
        given = recipe.text["compare"][title]
        steps += [_step(stage, one, title) for stage, one in zip(compared, given, strict=True)]
    return steps


def _step(stage: Stage, given: Any, chain: str | None) -> dict[str, Any]:
    return {
        "step": stage.name,
        "chain": chain,
        **_word_of(given),
        "params": stage.params,
        "macs": stage.macs,
        "seconds": stage.seconds,
        "notes": list(stage.notes),
    }


def _word_of(given: Any) -> dict[str, Any]:
    word, options = next(iter(given.items())) if isinstance(given, dict) else (given, None)
    return {"word": word, "options": options or {}}
