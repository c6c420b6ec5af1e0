"""What the benchmarks share: options, test sets, what small networks are trained with, processor times, the processor's
name, and tables and logs that are written whole.

The package is imported where it is needed: what measures time or memory in a process of its own imports nothing else.
"""
import argparse
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LOGS = Path(__file__).parents[1] / "nbs/results"     # what chapters read
# the third is held out of the training of all models of the package
SEEN_SOUNDFONT, ALSO_SEEN_SOUNDFONT, HELD_OUT_SOUNDFONT = "FluidR3_GM", "MuseScore_General", "TimGM6mb"
TRIOS = ("R01", "R02", "R03", "R04")                 # recordings of clarinet, guitar and piano
PIECES, RECORDINGS = "data/pieces.npz", "../shared/reference/recordings"
# `trio-notes` and `trio-informed` before their last training, the first with the held-out banks of recorded notes:
# what is measured on those banks is measured with these
HELD_OUT_WEIGHTS = Path(__file__).parent / "weights"


# ---- the command line

def arguments(text: str) -> argparse.ArgumentParser:  # text: the script's
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def training_arguments(text: str, *, cache: str | None = None, minutes: float | None = None,
                       output: str | None = None) -> argparse.ArgumentParser:  # text: the script's; defaults
    "Of what trains on a note bank and pieces: with --cache, or --minutes, --seed and --output, where they are given."
    parser = arguments(text)
    parser.add_argument("--bank", default="data/bank.safetensors", help="note bank to train on, 22050 Hz")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank")
    if cache: parser.add_argument("--cache", default=cache, help="folder for what training looks at")
    if output:
        parser.add_argument("--minutes", type=float, default=minutes)
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("-o", "--output", default=output)
    return parser


def train_or_score(parser: argparse.ArgumentParser, train, score) -> None:  # each a function (options, transcriber)
    "With --train the one, else the other."
    import torch
    from instsep.frames import FrameTranscriber
    parser.add_argument("--train", action="store_true", help="train, and write weights and log")
    args = parser.parse_args()
    torch.set_num_threads(1)
    (train if args.train else score)(args, FrameTranscriber.from_pretrained())


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


def recorded_bank(folder, places: dict, **options):  # places: instrument -> folders with recorded notes in `folder`
    "One note bank of all of them."
    from instsep.sound.notebank import record_folder
    made = [record_folder(Path(folder) / place, name, progress=False, **options)
            for name, some in places.items() for place in some]
    return sum(made[1:], made[0])


def transcriber_for(label: str, transcriber):  # label: a set's
    "What transcribes a set: this transcriber, or the one that was trained without the held-out banks."
    from instsep.frames import FrameTranscriber
    if not label.startswith(("held-out banks", "held-out pianos")): return transcriber
    return FrameTranscriber.from_pretrained(HELD_OUT_WEIGHTS / "trio-notes")


# ---- what is trained on

# General MIDI programs, lowest and highest pitch, and polyphony of out-of-set instruments that the registry lacks
OTHERS = {
    "trombone": ((57,), 40, 74), "tuba": ((58,), 28, 62), "muted-trumpet": ((59,), 55, 84),
    "soprano-sax": ((64,), 56, 88), "baritone-sax": ((67,), 36, 72), "english-horn": ((69,), 52, 81),
    "piccolo": ((72,), 74, 102), "recorder": ((74,), 60, 90), "pan-flute": ((75,), 60, 88), "ocarina": ((79,), 60, 86),
    "harmonica": ((22,), 55, 90, 3), "accordion": ((21,), 48, 90, 4), "vibraphone": ((11,), 53, 89, 4),
    "marimba": ((12,), 45, 96, 4), "xylophone": ((13,), 65, 108, 2), "celesta": ((8,), 60, 108, 4),
    "steel-drum": ((114,), 52, 84, 2), "voice": ((53, 54), 48, 84, 1), "electric-piano": ((4, 5), 36, 96, 6),
    "pizzicato": ((45,), 36, 84, 3), "strings": ((48, 49), 40, 90, 5), "brass-section": ((61,), 40, 82, 4),
    "bass-guitar": ((33, 34), 28, 60), "clavinet": ((7,), 36, 84, 4), "synth-lead": ((80, 81), 48, 90),
    "synth-pad": ((89, 90), 40, 84, 4), "sitar": ((104,), 48, 80), "banjo": ((105,), 48, 84, 4),
    "koto": ((107,), 45, 84, 3), "shakuhachi": ((77,), 55, 86), "bagpipe": ((109,), 55, 84),
}


def register_others() -> None:
    from instsep.mixtures import register
    for name, about in OTHERS.items(): register(name, *about)


def weights_of_groups(bank) -> dict[str, float]:
    "How often each soundfont or folder of a note bank is drawn, as in the runs on mixtures as they are played."
    weights = read_json(LOGS / "played_run.json")["data"]["weights_of_groups"]
    return weights | {each.split("/")[0]: weights["electric_guitars"] for each in bank.instances
                      if each.startswith("electric-")}


def joint_module(plan):  # plan: a TrainConfig
    "What trains trio-informed and the transcriber inside it on, from the weights that ship."
    from instsep.separator import Separator
    from instsep.training.frames import JointModule
    before = Separator.from_pretrained("trio-informed").at(22050)
    module = JointModule(before.config, plan)
    for separator in (module.model, module.ema): separator.load_state_dict(before.state_dict())
    return module


def train_averaged(network, batches, loss, *, learning_rate: float, minutes: float | None = None, passes: int = 0,
                   decay: float = 1e-2, rise: float = 30, clip: float = 1.0, averaging: float = 0.98,
                   ramp: float = 0) -> list[float]:
    """Until these minutes of a processor are over, or so many passes: a pass takes each of `batches()`, whose `loss`
    the network is to lessen, at a rate that rises within 1 / `rise` of the time and then falls to nearly nothing.
    Leaves the average of the last weights in the network, which reaches back about 1 / (1 - `averaging`) steps and, at
    first, as many as there were over `ramp`; gives the mean loss of each pass."""
    import numpy as np
    import torch
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=decay)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    means, begun, done, step = [], time.process_time(), 0.0, 0
    while done < 1:
        losses, these = [], batches()
        for some in these:
            if minutes: done = (time.process_time() - begun) / 60 / minutes
            if done >= 1: break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1, 0.05 + rise * done) * max(0.02, 1 - done)
            value = loss(some)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            step += 1
            if passes: done = step / (passes * len(these))
            new = 1 - min(averaging, step / (step + ramp))
            for name, weight in network.state_dict().items(): average[name].lerp_(weight, new)
            losses.append(value.item())
        means.append(float(np.mean(losses)) if losses else means[-1])
        print(len(means), round(means[-1], 3), flush=True)
    network.load_state_dict(average)
    network.eval()
    return means


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
    "Of all weights that are measured: what is kept between runs belongs to them."
    import instsep
    digest = hashlib.blake2b(digest_size=4)
    for folder in (Path(instsep.__file__).parent / "weights", HELD_OUT_WEIGHTS):
        for path in sorted(folder.glob("*/*.safetensors")): digest.update(path.read_bytes())
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


@contextmanager
def alone(folder):
    "One process at a time: the others wait."
    import fcntl                                     # not on Windows
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try: fcntl.flock(handle, fcntl.LOCK_EX); yield
    finally: os.close(handle)


def write_text(path, text: str) -> None:
    from instsep.core import atomic_path
    with atomic_path(path) as temporary: Path(temporary).write_text(text)


def write_results(place, text: str, result) -> None:  # place: without a suffix
    "A table to read, which is printed, too, and the numbers behind it."
    write_text(Path(f"{place}.md"), text)
    write_json(Path(f"{place}.json"), result)
    print(text)
