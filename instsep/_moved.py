"""Where names are now that used to be elsewhere: old imports go on working, and say where to import from instead."""
import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

MODULES = dict(  # old module: the modules that hold its names now
    notes=["music.notes"], pieces=["music.pieces"], tokens=["music.tokens"],
    audio=["sound.audio"], spectral=["sound.spectral"], soundfont=["sound.soundfont"], notebank=["sound.notebank"],
    invent=["sound.invent"], transcription=["files.transcription"], report=["evaluation.report", "evaluation.page"],
    note_training=["training.frames"], mt3_training=["training.mt3"], custom=["training.own_instruments"])
NAMES = dict(  # module or folder that is still there: the modules that hold what was in it
    training=["training.separator"], inference=["inference.windows", "files.separation"],
    separator=["harmonic", "inference.registry", "sound.spectral"], frames=["together", "inference.registry"])

RENAMED = dict(  # names that are called otherwise now
    MaskRNN="OpenUnmixBLSTM", PickConfig="PeakPickingConfig", BothModule="JointModule")


def forward(old: str):
    "A module's `__getattr__` that looks for what is not there where it is now."
    def look_up(name: str):
        fault = AttributeError(f"module 'instsep.{old}' has no attribute {name!r}")
        if name.startswith("__"): raise fault
        # a module of the folder: to be imported
        if old in ("training", "inference") and find_spec(f"instsep.{old}.{name}"): raise fault
        now = RENAMED.get(name, name)
        for new in [*(MODULES | NAMES).get(old, []), *[old] * (name in RENAMED and old not in MODULES)]:
            module = import_module(f"instsep.{new}")
            if now not in vars(module): continue
            warnings.warn(f"instsep.{old}.{name} is now instsep.{new}.{now}", DeprecationWarning, stacklevel=2)
            return vars(module)[now]
        raise fault
    return look_up


class _Finder:
    "Finds old modules: an empty one is made, whose names are looked up where they are now."
    @staticmethod
    def find_spec(fullname, path=None, target=None):
        package, _, old = fullname.partition(".")
        if package == "instsep" and old in MODULES: return ModuleSpec(fullname, _Finder)

    @staticmethod
    def create_module(spec): return None

    @staticmethod
    def exec_module(module): module.__getattr__ = forward(module.__name__.partition(".")[2])


if _Finder not in sys.meta_path: sys.meta_path.insert(0, _Finder)
