#!/usr/bin/env python3
"""Check that the modules of the package import only what their floor allows (CONTRIBUTING.md, "Floors").

Reads the code, runs none of it. Three rules: imports inside the package go down or stay on the floor, never up and
never in a circle; the two networks know neither each other nor the data sets; and what a module imports at its top
level, where it is paid by everyone, is on its list. An import inside a function is free to be heavy.
"""
import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent/"instsep"
FLOORS = [
    {"core", "audio", "notes"},
    {"spectral", "metrics", "tokens", "timbre", "soundfont"},
    {"pieces", "notebank", "invent", "mixtures", "inference"},
    {"separator", "mt3", "frames", "transcription"},
    {"training", "custom", "note_training", "mt3_training"},
    {"errors", "report", "tunings"},  # what looks back at results
    {"cli"},
]
NEVER = {"separator": {"mixtures", "notebank", "invent", "pieces", "mt3"},
         "frames": {"mixtures", "notebank", "invent", "pieces", "mt3"},
         "mt3": {"mixtures", "notebank", "invent", "pieces", "separator", "frames"}}  # a network knows no data set
# At the top level of a module: the standard library, and of other packages at most these.
EVERYWHERE = {"numpy", "torch", "tqdm"}
TOP_LEVEL = {
    "audio": {"soundfile", "soxr"},
    "metrics": {"mir_eval"},
    "timbre": {"librosa", "matplotlib"},
    "separator": {"safetensors", "transformers"},
    "mt3": {"safetensors", "transformers"},
    "mixtures": {"safetensors", "torchaudio"},
    "notebank": {"safetensors", "torchaudio"},
    "training": {"safetensors", "torchaudio", "transformers", "lightning"},
    "note_training": {"lightning"},
    "mt3_training": {"safetensors", "transformers", "lightning"},
    "cli": {"typer"},
}


def imports(module: ast.Module) -> tuple[set, set]:
    "Modules of the package imported anywhere, and other packages imported at the top level."
    inside, outside = set(), set()
    def visit(node, top_level):
        for child in ast.iter_child_nodes(node):
            names = []
            if isinstance(child, ast.Import): names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                parent = "instsep." * (child.level > 0) + (child.module or "")
                names = [f"instsep.{alias.name}" for alias in child.names] if parent in ("instsep", "instsep.") else [parent]
            for name in names:
                first, _, rest = name.partition(".")
                if first == "instsep": inside.add(rest.split(".")[0])
                elif top_level and first not in sys.stdlib_module_names: outside.add(first)
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            visit(child, top_level and not is_function)
    visit(module, True)
    return inside, outside


def main() -> int:
    floor_of = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    faults, edges = [], {}
    for path in sorted(PACKAGE.glob("*.py")):
        name = path.stem
        if name.startswith("_"): continue
        if name not in floor_of:
            faults.append(f"{name}: has no floor; give it one in tools/floors.py and CONTRIBUTING.md")
            continue
        inside, outside = imports(ast.parse(path.read_text(encoding="utf-8")))
        inside &= set(floor_of)
        faults += [f"{name} (floor {floor_of[name]}) imports {other} (floor {floor_of[other]}): upwards"
                   for other in sorted(inside) if floor_of[other] > floor_of[name]]
        faults += [f"{name} imports {other}: a network knows no data set" for other in sorted(inside & NEVER.get(name, set()))]
        faults += [f"{name} imports {other} at its top level: not on its list, import it inside the function that needs it"
                   for other in sorted(outside - EVERYWHERE - TOP_LEVEL.get(name, set()))]
        edges[name] = {other for other in inside if floor_of[other] == floor_of[name]}
    while free := {name for name, others in edges.items() if not others & set(edges)}:
        for name in free: del edges[name]
    if edges: faults.append(f"imports go in a circle: {', '.join(sorted(edges))}")
    print("\n".join(faults) or f"imports go down: {len(list(PACKAGE.glob('[!_]*.py')))} modules on {len(FLOORS)} floors")
    return 1 if faults else 0


if __name__ == "__main__": sys.exit(main())
