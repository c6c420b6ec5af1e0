#!/usr/bin/env python3
"""Check that what the notebooks quote is what the committed results say: `tools/tables.py [--list]`.

Looked at are cells that read a JSON file and show tables or lines of text, and do nothing else. Each is run with only
those earlier cells that it needs, none of which may call anything but Python, numpy and `format_table`, and what comes
out is compared with the stored output. Exit code 1 if one differs. `--list` names the cells that are looked at.
"""
import ast
import builtins
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"json": json, "np": np, "re": re, "Path": Path}


def text(value) -> str: return value if isinstance(value, str) else "".join(value or ())


def table_function():
    "`metrics.format_table` by itself: its module needs torch."
    source = (ROOT/"instsep/metrics.py").read_text(encoding="utf-8")
    [found] = [node for node in ast.parse(source).body if getattr(node, "name", "") == "format_table"]
    space = {"np": np}
    exec(ast.unparse(found), space)
    return space["format_table"]


def plain(*parts: str) -> str:
    "Lines without what no reader sees; what was printed before what was displayed, in whichever order it came."
    return "\n".join(line.strip() for part in parts for line in part.splitlines() if line.strip())


class Shown(str):
    "Markdown or HTML."


def names(tree, kind) -> set:
    "Names that are read (`ast.Load`) or bound (`ast.Store`, with definitions) anywhere in a piece of code."
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, kind)}
    if kind is ast.Load: return found
    found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return found | {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


class Cell:
    def __init__(self, cell: dict):
        self.id, self.source = cell["id"], text(cell["source"])
        self.flags = set(re.findall(r"^#\|\s*([\w-]+)", self.source, re.M))
        try: self.tree = ast.parse(re.sub(r"^\s*[%!].*$", "", self.source, flags=re.M))
        except SyntaxError: self.tree = ast.Module([], [])
        self.tree.body = [node for node in self.tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
        self.reads, self.binds = names(self.tree, ast.Load), names(self.tree, ast.Store)
        kinds = [list(output.get("data", {})) for output in cell.get("outputs", [])]
        shown = [[text(output.get("text")), text(output.get("data", {}).get("text/markdown"))]
                 for output in cell.get("outputs", [])]
        self.stored = plain(*("\n".join(part) for part in zip(*shown)))
        self.is_text = bool(kinds) and all(not kind or "text/markdown" in kind for kind in kinds)


def slice_of(cells: list, at: int, known: set) -> list | None:
    "Cells that one needs, in order; None where something else is needed, or no result is read."
    chosen, wanted = [cells[at]], cells[at].reads - cells[at].binds
    for cell in reversed(cells[:at]):
        if not cell.binds & wanted: continue
        if cell.flags & {"export", "exports"}: return None
        chosen.append(cell)
        wanted = wanted | (cell.reads - cell.binds)
    bound = set().union(*(cell.binds for cell in chosen))
    reading = any("json.loads" in cell.source for cell in chosen)
    return chosen[::-1] if reading and wanted <= bound | known else None


def run(cells: list, folder: Path, space: dict) -> str:
    "What the last of the cells shows."
    shown, before = [], Path.cwd()
    space = space | dict(display=lambda *things: shown.extend(map(str, things)))
    os.chdir(folder)
    try:
        for cell in cells:
            shown.clear()
            body, last = cell.tree.body, None
            if body and isinstance(body[-1], ast.Expr): body, last = body[:-1], body[-1].value
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(ast.Module(body, []), cell.id, "exec"), space)
                value = eval(compile(ast.Expression(last), cell.id, "eval"), space) if last else None
            if isinstance(value, Shown): shown.append(value)
    finally: os.chdir(before)
    return plain(printed.getvalue(), "\n".join(shown))


def looked_at(notebook: Path):
    "(cell, what it shows now) of each cell that can be looked at."
    config = SimpleNamespace(get_config=lambda: SimpleNamespace(config_path=ROOT))
    space = MODULES | dict(format_table=table_function(), Markdown=Shown, HTML=Shown,
                           nbdev=SimpleNamespace(config=config))
    known = {*space, *dir(builtins), "display"}
    cells = [Cell(cell) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code"]
    for at, cell in enumerate(cells):
        if not cell.is_text or cell.flags & {"exec_doc", "slow"}: continue
        if (needed := slice_of(cells, at, known)) is None: continue
        yield cell, run(needed, notebook.parent, space)


def stale(notebook: Path):
    "A line for each cell that was looked at: empty, or what is no longer what the results say."
    for cell, now in looked_at(notebook):
        pairs = zip([*cell.stored.splitlines(), "(nothing more)"], [*now.splitlines(), "(nothing more)"])
        old, new = next(((old, new) for old, new in pairs if old != new), ("", ""))
        yield "" if cell.stored == now else (f"{notebook.relative_to(ROOT)}: cell {cell.id} shows\n  {old[:110]}\n"
                                             f"and the results say\n  {new[:110]}")


def main(arguments: list) -> int:
    notebooks = sorted(path for path in (ROOT/"nbs").rglob("*.ipynb") if not path.name.startswith((".", "_")))
    if "--list" in arguments:
        for notebook in notebooks: print(notebook.stem, *(cell.id for cell, _ in looked_at(notebook)))
        return 0
    found = [line for notebook in notebooks for line in stale(notebook)]
    for line in filter(None, found): print(line)
    print(f"{len(found)} cells quote results, {sum(map(bool, found))} of them others than there are: run their "
          "notebooks again and store what they show")
    return 1 if any(found) else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
