"""What the documentation's site has beside docs/: README, examples, measurements, and a reference out of docstrings.

A hook of MkDocs (mkdocs.yml). Links are those that a repository's page follows; here they lead to the site's own pages,
and what is no page of it to the repository.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages of the repository that lie elsewhere, by where they lie, and where they are on the site."""
REFERENCE = {
    "Passes": "compress/passes",
    "Gates": "compress/gates",
    "Data": "compress/data",
    "Networks' options": "compress/networks",
    "Losses": "compress/train/losses",
    "Post-processing": "compress/postprocess",
    "Packs": "compress/packing/kinds",
    "Objectives of a search": "compress/search/objectives",
    "Runtimes": "export/backends",
    "Devices": "export/devices",
}
"""Folders whose files are a recipe's words, each with the title of its page."""
SECTIONS = ("compress.measure.latency.Timing", "compress.measure.segmentation.Scoring", "compress.recipe.about.About")
SECTIONS += ("compress.train.training.Training", "export.reach.Reach")
"""What other sections of a recipe hold."""
PYTHON = (
    "compress.wrapping",
    "compress.commands.run",
    "compress.recipe.recipe",
    "compress.contracts",
    "export.artifact",
)
LINK = re.compile(r"\]\((?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give pages that are made here their place."""
    for section in config.nav or ():
        if "Measured" in section:
            section["Measured"] = [_site(path) for path in _measured()]
        if "Reference" in section:
            section["Reference"] += [{title: _of(title)} for title in (*REFERENCE, "Sections of a recipe", "Python")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {_site(path): (ROOT / path).read_text(encoding="utf-8") for path in (*PAGES, *_measured())}
    made["examples.md"] = _examples()
    for title, folder in REFERENCE.items():
        words = [path for path in sorted((ROOT / folder).glob("*.py")) if path.stem != "__init__"]
        made[_of(title)] = _page(title, [".".join((*Path(folder).parts, path.stem)) for path in words])
    made[_of("Sections of a recipe")] = _page("Sections of a recipe", SECTIONS)
    made[_of("Python")] = _page("Python", PYTHON)
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    for drawing in sorted((ROOT / "benchmarks").glob("*.svg")):
        files.append(File.generated(config, f"benchmarks/{drawing.name}", abs_src_path=str(drawing)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Have links lead to the site's pages, else to the repository."""
    here = page.file.src_uri
    there = {site: source for source, site in PAGES.items()} | {_site(path): path for path in _measured()}
    source = there.get(here, f"docs/{here}")

    def led(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        site = _site(target)
        if site is None:
            return f"](https://github.com/segpress/segpress/blob/main/{target})"
        return f"]({posixpath.relpath(site, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return LINK.sub(led, markdown)


def _site(path: str) -> str | None:
    """Where a page of the repository is on the site; None of what is none, or is not there."""
    if path in PAGES:
        return PAGES[path]
    if not path.endswith((".md", ".svg", ".png")) or not (ROOT / path).is_file():
        return None
    return path.removeprefix("docs/") if path.startswith(("docs/", "benchmarks/")) else None


def _measured() -> list[str]:
    """The pages of measurements."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.md"))


def _of(title: str) -> str:
    return f"reference/{re.sub(r'[^a-z]+', '_', title.lower()).strip('_')}.md"


def _page(title: str, names: Any) -> str:
    """A page of what docstrings say of these modules or classes."""
    return f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in names)


def _examples() -> str:
    """Every example with what it is about."""
    parts = ["# By example\n\nScripts that `make test` runs; they lie in `examples/`.\n"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        title = ast.get_docstring(ast.parse(text)) or path.stem
        parts.append(f"## {path.name}\n\n{title}\n\n```python\n{text}```\n")
    return "\n".join(parts)
