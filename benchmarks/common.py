"""What the benchmarks share: test sets, processor times, the processor's name, and tables and logs that are written
whole.

The package is imported where it is needed: what measures time or memory in a process of its own imports nothing else.
"""
import argparse
import hashlib
import json
import platform
import subprocess
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LOGS = Path(__file__).parents[1] / "nbs/results"     # what chapters read
# the third is held out of the training of all models of the package
SEEN_SOUNDFONT, ALSO_SEEN_SOUNDFONT, HELD_OUT_SOUNDFONT = "FluidR3_GM", "MuseScore_General", "TimGM6mb"
TRIOS = ("R01", "R02", "R03", "R04")                 # recordings of clarinet, guitar and piano
PIECES, RECORDINGS = "data/pieces.npz", "../shared/reference/recordings"


# ---- the command line

def arguments(text: str) -> argparse.ArgumentParser:  # text: the script's
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


# ---- sets

def soundfonts() -> dict[str, Path]:
    "Those that are installed, by name."
    from instsep.sound.soundfont import default_soundfont, find_soundfonts
    return {path.stem: path for path in [*find_soundfonts(), default_soundfont()]}


def test_soundfonts():
    """Label and path of the one seen in training and the one held out; one that is not installed is left out with a
    line."""
    fonts = soundfonts()
    for label, name in (("seen soundfont", SEEN_SOUNDFONT), ("held-out soundfont", HELD_OUT_SOUNDFONT)):
        if name in fonts: yield label, fonts[name]
        else: print(f"{label}: {name} is not installed, left out")


def exact_mixtures(soundfont, pieces, *, instruments=None, sample_rate=44100, seconds=8.0, absent=0.2,
                   augmentation=None, seed=100, **options):
    "A data set of pieces played exactly, on all programs of each instrument; None: the trio, at gains of their own."
    from instsep.mixtures import INSTRUMENTS, TRIO, Gain, Mixtures, soundfont_player
    instruments = instruments or TRIO
    programs = {name: [str(program) for program in INSTRUMENTS[name].programs] for name in instruments}
    return Mixtures(pieces, soundfont_player(soundfont, sample_rate), programs, instruments=instruments,
                    sample_rate=sample_rate, seconds=seconds,
                    absent=absent, augmentation=(Gain((-3, 3)),) if augmentation is None else augmentation, seed=seed,
                    **options)


def recordings(folder, names=("R",)):
    """Recordings whose folders begin with these names: folder, manifest, {instrument: (1, samples)} at 44.1 kHz;
    without any, a line."""
    from instsep.sound.audio import load
    if not Path(folder).is_dir(): return print(f"recordings: {folder} is not there, left out")
    for path in sorted(path for name in names for path in Path(folder).glob(f"{name}*/")):
        about = json.loads((path / "manifest.json").read_text())
        yield path, about, {stem["instrument"]: load(path / stem["stem"], sample_rate=44100, mono=True)[0]
                            for stem in about["stems"]}


# ---- transcribers that need an environment of their own

BASIC_PITCH = """
import json, sys, time
from basic_pitch import ICASSP_2022_MODEL_PATH
from basic_pitch.inference import Model, predict
model = Model(ICASSP_2022_MODEL_PATH)
paths, out = json.load(sys.stdin), {}
predict(paths[0], model)                               # what only the first call costs is not counted
for path in paths:
    begun = time.process_time()
    notes = predict(path, model)[2]
    out[path] = dict(cpu=time.process_time() - begun, notes=[[float(x) for x in note[:4]] for note in notes],
                     bends=[[100 / 3 * float(x) for x in note[4] or [1]] for note in notes])  # cents
json.dump(out, open(sys.argv[1], "w"))
"""


def run_elsewhere(python, script: str, paths, name: str) -> dict:  # python: of the environment
    "What a script there answers for each of some recordings; it reads their paths and writes JSON."
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "answers.json"
        done = subprocess.run([python, "-W", "ignore", "-c", script, str(result)], text=True, capture_output=True,
                              input=json.dumps([str(path) for path in paths]))
        if done.returncode: raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
        return json.loads(result.read_text())


# ---- what was measured already

def shipped_weights_id() -> str:
    "Of all weights in the package: what is kept between runs belongs to them."
    import instsep
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted((Path(instsep.__file__).parent / "weights").glob("*/*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# ---- time

def cpu_time(function, *inputs):
    "What a function gives back, and the processor seconds that it took."
    began = time.process_time()
    return function(*inputs), time.process_time() - began


def processor(family: bool = False) -> str:
    "The processor's name, where the system tells it."
    path = Path("/proc/cpuinfo")
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line) if path.exists() else ()
    about = {name.strip(): value.strip() for name, value in reversed(list(lines))}
    name = about.get("model name") or platform.processor() or platform.machine()
    return f"{name}, family {about['cpu family']} model {about['model']}" if family and "cpu family" in about else name


# ---- results

def read_json(path, otherwise=None):
    return json.loads(Path(path).read_text()) if Path(path).is_file() else otherwise


def write_json(path, content, **options) -> None:
    write_text(path, json.dumps(content, **dict(indent=1, default=float) | options) + "\n")


def write_text(path, text: str) -> None:
    from instsep.core import atomic_path
    with atomic_path(path) as temporary: Path(temporary).write_text(text)


def write_results(place, text: str, result) -> None:  # place: without a suffix
    "A table to read, which is printed, too, and the numbers behind it."
    write_text(Path(f"{place}.md"), text)
    write_json(Path(f"{place}.json"), result)
    print(text)
