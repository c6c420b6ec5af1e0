#!/usr/bin/env python3
"""Check that the modules of the package import only what their floor allows (CONTRIBUTING.md, "Floors").

Reads the code, runs none of it. Four rules: imports inside the package go down or stay on the floor, never up and never
in a circle (so no two modules import each other); a network knows no data set, and no network of another kind; what a
module imports at its top level, where it is paid by everyone, is on its list; and what the training path imports there,
with all that it stands on, is only what a GPU box needs. An import inside a function is free to be heavy.
"""
import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent/"instsep"
FLOORS = [  # a folder stands for all modules in it
    {"core", "workers"},
    {"music", "timbre"},
    {"sound"},
    {"metrics", "inference", "mixtures", "tunings", "mt3", "harmonic"},
    {"separator", "frames", "errors"},
    {"together", "evaluation", "files"},
    {"training"},
    {"cli"},
]
DATA = {"mixtures", "sound.notebank", "sound.invent", "music.pieces"}
NEVER = {"harmonic": DATA | {"mt3"}, "separator": DATA | {"mt3"}, "frames": DATA | {"mt3"}, "together": DATA | {"mt3"},
         "mt3": DATA | {"harmonic", "separator", "frames", "together"}}  # a network knows no data set
# At the top level of a module: the standard library, and of other packages at most these.
EVERYWHERE = {"numpy", "torch", "tqdm"}
TOP_LEVEL = {
    "sound.audio": {"soundfile", "soxr"},
    "sound.notebank": {"safetensors", "torchaudio"},
    "metrics": {"mir_eval"},
    "timbre": {"librosa", "matplotlib"},
    "inference.registry": {"safetensors"},
    "separator": {"safetensors", "transformers"},
    "mt3": {"safetensors", "transformers"},
    "mixtures": {"safetensors", "torchaudio"},
    "training.separator": {"safetensors", "torchaudio", "transformers", "lightning"},
    "training.frames": {"lightning"},
    "training.mt3": {"safetensors", "transformers", "lightning"},
    "cli": {"typer"},
}
# Trained on a machine with nothing else: what these and all that they stand on import at their top level.
TRAINING_PATH = {"sound.notebank", "mixtures", "separator", "training.separator", "training.frames",
                 "training.performance", "training.mt3"}
TRAINING_NEEDS = EVERYWHERE | {"torchaudio", "safetensors", "transformers", "lightning"}


def imports(module: ast.Module, parents: list[str], known: set[str]) -> tuple[set, set, set]:
    "Modules of the package imported anywhere, those at the top level, and other packages imported at the top level."
    inside, above, outside = set(), set(), set()
    def visit(node, top_level):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING": continue  # never run
            names = []
            if isinstance(child, ast.Import): names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                start = ["instsep", *parents][:len(parents) + 2 - child.level] if child.level else []
                origin = ".".join([*start, *filter(None, [child.module])])
                # of a folder, names may be modules
                names = [origin, *(f"{origin}.{alias.name}" for alias in child.names)]
            for name in names:
                first, _, rest = name.partition(".")
                if first == "instsep":
                    if rest in known: inside.add(rest)
                    if rest in known and top_level: above.add(rest)
                elif top_level and first not in sys.stdlib_module_names: outside.add(first)
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            visit(child, top_level and not is_function)
    visit(module, True)
    return inside, above, outside


def floor_of(name: str) -> int | None:
    "A module's floor, or its folder's."
    return next((floor for floor, names in enumerate(FLOORS) if {name, name.split(".")[0]} & names), None)


def stands_on(names: set[str], above: dict[str, set]) -> set[str]:
    "These modules and all that importing them imports."
    found, new = set(), set(names)
    while new: found, new = found | new, set().union(*(above[name] for name in new)) - found - new
    return found


def main() -> int:
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))
             if not path.stem.startswith("_")}
    read = {name: imports(ast.parse(path.read_text(encoding="utf-8")), name.split(".")[:-1], set(paths))
            for name, path in paths.items()}
    faults, edges = [], {}
    for name, (inside, _, outside) in read.items():
        floor = floor_of(name)
        if floor is None:
            faults.append(f"{name}: has no floor; give it one in tools/floors.py and CONTRIBUTING.md")
            continue
        faults += [f"{name} (floor {floor}) imports {other} (floor {floor_of(other)}): upwards"
                   for other in sorted(inside) if (floor_of(other) or 0) > floor]
        faults += [f"{name} imports {other}: a network knows no data set and no other kind of network"
                   for other in sorted(inside & NEVER.get(name, set()))]
        faults += [f"{name} imports {other} at its top level: not on its list, import it inside the function that "
                   "needs it"
                   for other in sorted(outside - EVERYWHERE - TOP_LEVEL.get(name, set()))]
        edges[name] = {other for other in inside if floor_of(other) == floor}
    for name in sorted(stands_on(TRAINING_PATH, {name: above for name, (_, above, _) in read.items()})):
        faults += [f"{name} imports {other} at its top level, and training stands on it: import it inside the function "
                   "that needs it"
                   for other in sorted(read[name][2] - TRAINING_NEEDS)]
    while free := {name for name, others in edges.items() if not others & set(edges)}:
        for name in free: del edges[name]
    if edges: faults.append(f"imports go in a circle: {', '.join(sorted(edges))}")
    print("\n".join(faults) or f"imports go down: {len(read)} modules on {len(FLOORS)} floors")
    return 1 if faults else 0


if __name__ == "__main__": sys.exit(main())
