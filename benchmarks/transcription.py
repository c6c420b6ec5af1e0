"""Score a transcriber: held-out pieces with a soundfont seen in training and a held-out one, the octave set,
recordings.

    OMP_NUM_THREADS=1 python benchmarks/transcription.py --recordings ../shared/reference/recordings \\
        --basic-pitch ../basic-pitch/bin/python

Beside it stand the same transcriber behind the separator, basic-pitch, and what MT3's tokens and the grid of frames
would cost a transcriber that never errs. basic-pitch needs an environment of its own, whose python is named here:

    python -m venv ../basic-pitch
    ../basic-pitch/bin/pip install --no-deps basic-pitch==0.4.0
    ../basic-pitch/bin/pip install onnxruntime librosa mir_eval pretty_midi resampy "setuptools<81"

A set whose soundfont or folder is not there is left out with a line, and so is basic-pitch. Results go to
benchmarks/results/transcription_<name>.json and .md. With --piano nothing of that is done: the pianos of recordings are
transcribed, alone and within their mixtures, also by transkun, which knows pianos only, and the results go
to transcription_<name>_piano. transkun needs an environment of its own, too, with a torch and a torchaudio that go
together:

    python -m venv ../transkun
    ../transkun/bin/pip install transkun==2.0.1 torch==2.14.1 torchaudio==2.11.1

    OMP_NUM_THREADS=1 python benchmarks/transcription.py --piano R01 R05 --transkun ../transkun/bin/python

With --tune thresholds are tried on mixtures of validation pieces, played by soundfonts seen in training, and the
results go to transcription_<name>_tuning.
"""
import csv
import hashlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from instsep.sound.audio import mono_blocks, save
from instsep.inference.registry import DEFAULT_TRANSCRIBER
from instsep.frames import FrameTranscriber, PeakPickingConfig, note_targets, pick_notes
from instsep.metrics import format_table, note_scores, note_scores_by_instrument
from instsep.mixtures import DEFAULT_AUGMENTATION, INSTRUMENTS, TRIO, Gain
from instsep.music.notes import Note, instrument_programs
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.music.tokens import decode, encode, trim_overlaps
from instsep.files.transcription import load_transcriber
from common import (ALSO_SEEN_SOUNDFONT, BASIC_PITCH, HELD_OUT_SOUNDFONT, PIECES, RECORDINGS, RESULTS, SEEN_SOUNDFONT,
                    TRIOS, arguments, cpu_time, exact_mixtures, processor, read_json, recordings, run_elsewhere,
                    soundfonts, write_json, write_results)

RATE = 44100
PROGRAM = {name: instrument.programs[0] for name, instrument in INSTRUMENTS.items()}
SHORT = dict(onset_f1="onset F1", onset_offset_f1="onset+offset F1",
             multi_instrument_onset_f1="multi-instrument onset F1",
             multi_instrument_f1="multi-instrument F1", frame_f1="frame F1", instrument_leakage="leakage")
INSTSEP, GIVEN, FIRST, PITCH = "instsep", "instsep, instruments given", "instsep, separated first", "basic-pitch"
TRANSKUN = "transkun"
CODEC, GRID = "tokens, ceiling", "frames, ceiling"
# measures that mean nothing where instruments are not distinguished
MIXED = ("multi_instrument", "instrument")
FAMILY = {program: name for name in (*TRIO, "flute") for program in instrument_programs(name)}


def family(program: int) -> str:
    "The instrument that a program stands for: all guitars are one, and so are all pianos."
    return FAMILY.get(program, f"program {program}")


# ---- what is transcribed

@dataclass
class Item:
    "A mixture, its stems (1, samples) at 44.1 kHz, and its notes: those that begin in it, cut at its end."
    set: str
    name: str
    kind: str
    stems: dict[str, np.ndarray]
    notes: list[Note]
    mixture: np.ndarray     # (1, samples)

    @property
    def seconds(self) -> float: return self.mixture.shape[1] / RATE


def reference(
    parts: dict[str, np.ndarray],  # instrument -> (n, 4): onset s, offset s, pitch, velocity
    seconds: float,
) -> list[Note]:
    "Notes that begin in a window and 20 ms or more before its end."
    return sorted(Note(on, min(off, seconds), int(pitch), int(np.clip(round(velocity), 1, 127)), PROGRAM[name])
                  for name, notes in parts.items()
                  for on, off, pitch, velocity in np.asarray(notes, float).reshape(-1, 4).tolist()
                  if 0 <= on < seconds - 0.02)


def soundfont_items(label: str, soundfont: Path, pieces, count: int, *, instruments=TRIO, absent: float = 0.2,
                    **options) -> Iterator[Item]:
    "Mixtures of the pieces, played exactly, as `separation.py` has them."
    data = exact_mixtures(soundfont, pieces, instruments=instruments, absent=absent, **options)
    for i in range(count):
        score, stems = data.item(i)
        named = {name: stems[k:k + 1] for k, name in enumerate(data.stems) if name != "other" or stems[k].any()}
        yield Item(label, f"{i:03d}", score.kind, named, reference(score.parts, data.seconds),
                   stems.sum(0, keepdims=True))


def recorded_items(label: str, folder: Path, names: tuple[str, ...]) -> Iterator[Item]:
    "Recordings with their true notes."
    for path, about, stems in recordings(folder, names):
        parts = {}
        for stem in about["stems"]:
            with open(path / stem["notes_csv"], newline="", encoding="utf-8") as file:
                parts[stem["instrument"]] = np.array([[float(row[key])
                                                       for key in ("onset_s", "offset_s", "midi", "velocity")]
                                                      for row in csv.DictReader(file)])
        mixture = sum(stems.values())
        yield Item(label, path.name, about["kind"], stems, reference(parts, mixture.shape[1] / RATE), mixture)


def all_items(pieces, count: int, recordings: str) -> Iterator[Item]:
    "Every item of every set that is there."
    fonts, folder = soundfonts(), Path(recordings)
    octaves = dict(instruments=("guitar", "piano"), absent=0.0, kinds=dict(octaves=1.0))
    for label, font, options in (("seen soundfont", SEEN_SOUNDFONT, {}), ("held-out soundfont", HELD_OUT_SOUNDFONT, {}),
                                 ("octaves, seen", SEEN_SOUNDFONT, octaves),
                                 ("octaves, held-out", HELD_OUT_SOUNDFONT, octaves)):
        if font in fonts: yield from soundfont_items(label, fonts[font], pieces, count, **options)
        else: print(f"{label}: {font} is not installed, left out")
    if not folder.is_dir(): print(f"recordings: {folder} is not there, left out"); return
    yield from recorded_items("recordings", folder, TRIOS)
    yield from recorded_items("R05, piano alone", folder, ("R05",))
    yield from recorded_items("R06, flute and piano", folder, ("R06",))


# ---- who transcribes

def separated_first(transcriber, separator: Separator, mixture: np.ndarray) -> list[Note]:
    "Each stem's notes, of its own instrument only."
    stems = separator.separate(mixture, RATE)
    return sorted(note for name in separator.config.instruments
                  for note in transcriber(stems[name].numpy(), RATE, progress=False) if note.program == PROGRAM[name])


def through_tokens(notes: list[Note], seconds: float) -> list[Note]:
    "Notes written as MT3's tokens and read again."
    return decode(encode(trim_overlaps(notes), math.ceil(16000 * seconds)))[0]


def through_frames(notes: list[Note], samples: int, transcriber: FrameTranscriber) -> list[Note]:
    "Notes as the targets of the frame-wise network, picked from them as from its posteriors."
    config, rate = transcriber.network.config, transcriber.network.frame_rate
    parts = [np.array([(n.onset, n.offset, n.pitch, n.velocity) for n in notes if n.program == PROGRAM[name]]).reshape(
        -1, 4)
             for name in config.instruments]
    frames = 1 + math.ceil(samples / RATE * rate)
    found, who, _ = pick_notes(note_targets(parts, frames, rate), rate,
                               config=replace(transcriber.pick, sharing_exponent=1))
    return [Note(on, off, int(pitch), int(velocity), PROGRAM[config.instruments[k]])
            for k, (on, off, pitch, velocity) in zip(who, found.tolist())]


TRANSKUN_SCRIPT = """
import json, sys, time, wave
from pathlib import Path
import moduleconf, numpy as np, torch, transkun
torch.set_num_threads(1)
torch.set_grad_enabled(False)
weights = Path(transkun.__file__).parent / "pretrained"
loaded = moduleconf.parseFromFile(str(weights / "2.0.conf"))["Model"]
model = loaded.module.TransKun(conf=loaded.config).eval()
state = torch.load(weights / "2.0.pt", map_location="cpu")
model.load_state_dict(state.get("best_state_dict") or state["state_dict"], strict=False)
paths, out = json.load(sys.stdin), {}
for path in paths:
    with wave.open(path) as file: samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    begun = time.process_time()
    notes = model.transcribe(torch.from_numpy(samples[:, None].astype(np.float32) / 2 ** 15), discardSecondHalf=False)
    out[path] = dict(cpu=time.process_time() - begun,  # pedals have negative pitches
                     notes=[[note.start, note.end, note.pitch, note.velocity] for note in notes if note.pitch > 0])
json.dump(out, open(sys.argv[1], "w"))
"""


class Other:
    "A transcriber in another environment; what it found in a file is kept beside the files."
    name, script, loudest, subtype = PITCH, BASIC_PITCH, 127, "FLOAT"  # loudest: velocity of a loudness of 1

    def __init__(self, python: str, folder: Path):
        self.python, self.folder, self.log = python, folder, folder.with_suffix(".json")
        self.known = read_json(self.log, {})

    def path(self, item: Item) -> Path:
        return self.folder / (hashlib.blake2b(item.mixture.tobytes(), digest_size=12).hexdigest() + ".wav")

    def prepare(self, items: list[Item]) -> None:
        "Transcribe what is not in the cache yet, all in one process."
        fresh = {self.path(item): item for item in items if self.path(item).name not in self.known}
        if not fresh: return
        for path, item in fresh.items(): save(path, item.mixture, RATE, subtype=self.subtype)
        answers = run_elsewhere(self.python, self.script, fresh, self.name)
        self.known |= {Path(path).name: dict(cpu=found["cpu"], notes=found["notes"]) for path, found in answers.items()}
        write_json(self.log, self.known, indent=None)
        for path in fresh: path.unlink()

    def __call__(self, item: Item) -> tuple[list[Note], float]:  # notes, all of one program; CPU seconds
        found = self.known[self.path(item).name]
        return [Note(max(on, 0.0), off, int(pitch), int(np.clip(round(self.loudest * loud), 1, 127)))
                for on, off, pitch, loud in found["notes"] if off > max(on, 0.0)], found["cpu"]


class BasicPitch(Other):
    "basic-pitch 0.4.0: notes of any instrument, without its name."


class Transkun(Other):
    "transkun 2.0.1: a piano's notes, as long as they sound under the pedal."
    name, script, loudest, subtype = TRANSKUN, TRANSKUN_SCRIPT, 1, "PCM_16"


# ---- scores

APART = 64.0  # s, between items that are scored as one; more than any of them lasts


def moved(notes: list[Note], seconds: float) -> list[Note]:
    return [replace(note, onset=note.onset + seconds, offset=note.offset + seconds) for note in notes]


def pooled(answers: list[dict]) -> tuple[list[Note], list[Note]]:
    "All items one after another, far enough apart: true notes, found notes."
    return tuple([note for i, answer in enumerate(answers) for note in moved(answer[key], i * APART)]
                 for key in ("truth", "found"))


def scores(answer: dict) -> dict[str, float]:
    blind = answer["system"] == PITCH
    found = note_scores(answer["truth"], answer["found"], granularity=family)
    return {key: math.nan if blind and key.startswith(MIXED) else value for key, value in found.items()}


def summary(answers: list[dict]) -> tuple[list[dict], list[dict]]:
    "A row per set and system: over all notes together, and mean and median over items."
    together, each = [], []
    groups = {}
    for answer in answers: groups.setdefault((answer["set"], answer["system"]), []).append(answer)
    for (label, system), own_rows in groups.items():
        truth, found = pooled(own_rows)
        all_notes = scores(dict(truth=truth, found=found, system=system))
        head = {"set": label, "system": system, "items": len(own_rows)}
        together.append(head | {"notes": len(truth), "found": len(found),
                                "onset precision": all_notes["onset_precision"],
                                "onset recall": all_notes["onset_recall"]}
                        | {SHORT[key]: all_notes[key] for key in SHORT})
        each.append(head | {f"{SHORT[key]}, {word}": _over([a["scores"][key] for a in own_rows], what)
                            for key in ("onset_f1", "multi_instrument_onset_f1", "multi_instrument_f1")
                            for word, what in (("mean", np.mean), ("median", np.median))})
    return together, each


def _over(values: list[float], what) -> float:
    values = [value for value in values if not math.isnan(value)]
    return float(what(values)) if values else math.nan


def by_instrument(answers: list[dict], system: str) -> list[dict]:
    "A row per set and instrument, all notes together."
    table = []
    for label in dict.fromkeys(a["set"] for a in answers):
        own_rows = [a for a in answers if (a["set"], a["system"]) == (label, system)]
        rows = {row["instrument"]: row for row in note_scores_by_instrument(*pooled(own_rows), granularity=family)}
        for name in sorted(rows):
            row, of = rows[name], lambda notes: [note for note in notes if family(note.program) == name]
            plays = [a for a in own_rows if of(a["truth"])]
            alone = [note_scores_by_instrument(of(a["truth"]), of(a["found"]), granularity=family)[0] for a in plays]
            invented = [note for a in own_rows if not of(a["truth"]) for note in of(a["found"])]
            right = round(row["onset_recall"] * row["n_reference"]) if row["n_reference"] else 0
            table.append({"set": label, "instrument": name, "items": len(plays), "notes": row["n_reference"],
                          "onset precision": row["onset_precision"] if plays else math.nan,
                          "onset recall": row["onset_recall"],
                          "onset F1": row["onset_f1"] if plays else math.nan, "onset+offset F1": row["onset_offset_f1"]
                          if plays else math.nan,
                          "onset F1, mean": _over([r["onset_f1"] for r in alone], np.mean),
                          "onset F1, median": _over([r["onset_f1"] for r in alone], np.median),
                          "missed": row["n_reference"] - right,
                          "false": row["n_estimate"] - right, "of them where it is absent": len(invented)})
    return table


def costs(answers: list[dict]) -> list[dict]:
    "CPU seconds for a second of sound."
    groups = {}
    for answer in answers:
        if not math.isnan(answer["cpu"]): groups.setdefault(answer["system"], []).append(answer)
    return [{"system": system, "seconds of sound": round(sum(a["seconds"] for a in own_rows)),
             "CPU s per s": sum(a["cpu"] for a in own_rows) / sum(a["seconds"] for a in own_rows)}
            for system, own_rows in groups.items()]


def transcribe_all(items: list[Item], transcriber, separator: Separator | None,
                   basic_pitch: BasicPitch | None) -> list[dict]:
    "Which system found what in which item."
    answers = []
    def answer(item, system, found, cpu=math.nan):
        row = dict(set=item.set, item=item.name, kind=item.kind, system=system, seconds=item.seconds, cpu=cpu,
                   truth=item.notes, found=list(found))
        answers.append(row | dict(scores=scores(row)))
    def timed(item, system, function, *inputs):
        answer(item, system, *cpu_time(lambda: list(function(*inputs))))
    # what only the first call costs is not counted
    transcriber(items[0].mixture, RATE, progress=False)
    if basic_pitch: basic_pitch.prepare(items)
    for item in items:
        timed(item, INSTSEP, lambda: transcriber(item.mixture, RATE, progress=False))
        playing_names = [name for name, stem in item.stems.items() if stem.any()]
        if set(playing_names) <= set(TRIO):
            timed(item, GIVEN, lambda: transcriber(item.mixture, RATE, instruments=playing_names, progress=False))
        if separator: timed(item, FIRST, separated_first, transcriber, separator, item.mixture)
        if basic_pitch: answer(item, PITCH, *basic_pitch(item))
        answer(item, CODEC, through_tokens(item.notes, item.seconds))
        if isinstance(transcriber, FrameTranscriber):
            answer(item, GRID, through_frames(item.notes, item.mixture.shape[1], transcriber))
    return answers


# ---- pianos

def piano_items(folder: Path, names: tuple[str, ...]) -> list[Item]:
    "The piano of each recording alone, and the recording it is in; the notes are the piano's."
    items = []
    for item in recorded_items("", folder, names):
        if "piano" not in item.stems: continue
        notes = [note for note in item.notes if family(note.program) == "piano"]
        items.append(Item("alone", item.name, item.kind, {"piano": item.stems["piano"]}, notes, item.stems["piano"]))
        if len(item.stems) > 1: items.append(replace(item, set=f"within {len(item.stems)}", notes=notes))
    return items


def piano_rows(items: list[Item], transcriber, others: list[Other]) -> list[dict]:
    "A row per recording, way of hearing it and transcriber: scores over the piano's notes."
    rows = []
    for other in others: other.prepare(items)
    transcriber(items[0].mixture, RATE, progress=False)  # what only the first call costs is not counted
    for item in items:
        ways = [(INSTSEP, lambda: cpu_time(lambda: list(transcriber(item.mixture, RATE, progress=False)))),
                *([(GIVEN, lambda: cpu_time(lambda: list(transcriber(
                    item.mixture, RATE, instruments=list(item.stems), progress=False))))]
                  if set(item.stems) <= set(TRIO) else []),
                *((other.name, lambda other=other: other(item)) for other in others)]
        for system, listen in ways:
            found, cpu = listen()
            found = [note for note in found if family(note.program) == "piano"]  # the others' are all of one program
            score = note_scores(item.notes, found)
            rows.append({"recording": item.name, "piano": item.set, "system": system, "notes": len(item.notes),
                         "found": len(found), "onset F1": score["onset_f1"],
                         "onset+offset F1": score["onset_offset_f1"], "onset+velocity F1": score["onset_velocity_f1"],
                         "velocity r": score["velocity_correlation"], "CPU s per s": cpu / item.seconds})
    return rows


def piano_text(rows: list[dict], command: str) -> str:
    return (f"# Pianos of recordings\n\n`{command}`\n\nThe piano alone, and within the recording it is in; the scores "
            "are those of the piano's notes. Of instsep the notes that it gives to the piano count, of the others, "
            "which do not tell instruments apart, all. Onset within 50 ms; offset within 20 % of the length or 50 ms; "
            "velocity within 10 % after a linear fit (mir_eval); r: correlation of the velocities of found notes. "
            "basic-pitch and transkun: processor seconds of their first run on the files.\n\n"
            + format_table(rows, digits=3) + "\n")


# ---- thresholds

def tune(transcriber: FrameTranscriber, pieces, count: int) -> list[dict]:
    "Mean over validation mixtures, half of them dry and half in rooms, for every pair of thresholds."
    fonts, items = soundfonts(), []
    for font in [name for name in fonts if name.startswith((SEEN_SOUNDFONT, ALSO_SEEN_SOUNDFONT))]:
        for share, augmentation in (("dry", (Gain((-3, 3)),)), ("in rooms", DEFAULT_AUGMENTATION)):
            items += soundfont_items(f"{font}, {share}", fonts[font], pieces, count, augmentation=augmentation,
                                     seed=200)
    print(f"{len(items)} validation mixtures: " + ", ".join(dict.fromkeys(item.set for item in items)))
    names, rate = transcriber.network.config.instruments, transcriber.network.frame_rate
    posteriors = [np.concatenate(
        list(transcriber.probabilities(mono_blocks(item.mixture, RATE, transcriber.network.config.sample_rate)[0])), -1)
            for item in items]
    rows, grid = [], np.round(np.arange(0.2, 0.801, 0.05), 2).tolist()
    for onset in [value for value in grid if value <= 0.6]:
        for frame in grid:
            each = []
            for item, probability in zip(items, posteriors):
                notes, who, _ = pick_notes(probability, rate, config=PeakPickingConfig(onset=onset, frame=frame))
                found = [Note(on, off, int(pitch), int(loud), PROGRAM[names[k]])
                         for k, (on, off, pitch, loud) in zip(who, notes.tolist())]
                each.append(note_scores(item.notes, found, granularity=family))
            rows.append({"onset": onset, "frame": frame} | {SHORT[key]: _over([s[key] for s in each], np.mean)
                        for key in ("onset_f1", "multi_instrument_onset_f1", "multi_instrument_f1", "frame_f1")})
    return rows


def tuning_text(rows: list[dict], command: str, count: int) -> str:
    "A grid for what depends on both thresholds, a line for what depends on one, and the best of each."
    onsets, frames = ({key: sorted({row[key] for row in rows}) for key in ("onset", "frame")}[k]
                      for k in ("onset", "frame"))
    at = {(row["onset"], row["frame"]): row for row in rows}
    line = [{"onset": f"{o:.2f}"} | {name: at[o, frames[0]][name] for name in ("onset F1", "multi-instrument onset F1")}
            for o in onsets]
    grid = [{"onset \\ frame": f"{o:.2f}"} | {f"{f:.2f}": at[o, f]["multi-instrument F1"] for f in frames}
            for o in onsets]
    roll = [{"onset \\ frame": f"{o:.2f}"} | {f"{f:.2f}": at[o, f]["frame F1"] for f in frames} for o in onsets]
    # the onset's threshold decides which notes there are, the frame's only how long they last
    onset = max(line, key=lambda row: row["onset F1"] + row["multi-instrument onset F1"])["onset"]
    best = max((row for row in rows if f"{row['onset']:.2f}" == onset), key=lambda row: row["multi-instrument F1"])
    return (f"# Thresholds\n\n`{command}`\n\nMeans over {count} mixtures of validation pieces, played by soundfonts "
            "seen in training, half of them dry and half with the rooms, tone controls and noise of training. Where a "
            "note begins depends on the onset's threshold alone:\n\n" + format_table(line, digits=3)
            + "\n\nMulti-instrument F1, which asks for offsets too:\n\n" + format_table(grid, digits=3)
            + "\n\nFrame F1:\n\n" + format_table(roll, digits=3)
            + f"\n\nBest: onset {best['onset']:.2f} (sum of the two onset scores), then frame {best['frame']:.2f} "
              "(multi-instrument F1): "
            + ", ".join(f"{name} {best[name]:.3f}" for name in list(best)[2:])
            + ". A higher threshold for frames ends notes sooner: "
            "good for ends, bad for frames." + _used(at) + "\n")


def _used(at: dict) -> str:
    "What the thresholds in use come to, where they were tried."
    used = PeakPickingConfig()
    row = at.get((used.onset, used.frame))
    return f" In use, between the two: onset {used.onset:g}, frame {used.frame:g}: " + ", ".join(
        f"{name} {row[name]:.3f}" for name in list(row)[2:]) + "." if row else ""


# ---- all of it

def main():
    parser = arguments(__doc__)
    parser.add_argument("--model", default=DEFAULT_TRANSCRIBER)
    parser.add_argument("--separator", default="trio", help="none: nothing is separated first")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank, made by instsep pieces")
    parser.add_argument("--recordings", default=RECORDINGS)
    parser.add_argument("--count", type=int, default=40, help="mixtures per soundfont")
    parser.add_argument("--basic-pitch", metavar="PYTHON", help="of an environment with basic-pitch")
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "instsep-basic-pitch"),
                        help="folder of basic-pitch's inputs and notes")
    parser.add_argument("--piano", nargs="+", metavar="RECORDING", help="only the pianos of these: R01 R05")
    parser.add_argument("--transkun", metavar="PYTHON", help="of an environment with transkun; for --piano")
    parser.add_argument("--tune", action="store_true", help="try thresholds on validation mixtures instead")
    parser.add_argument("--name", default=None, help="of the result; the model's name when left out")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = load_transcriber(args.model)
    out, name = Path(args.out), args.name or Path(args.model).name
    command = f"OMP_NUM_THREADS=1 python benchmarks/transcription.py --model {args.model} --count {args.count}"
    if args.separator != "trio": command += f" --separator {args.separator}"
    if args.piano:
        others = [kind(python, Path(args.cache).with_name(f"instsep-{kind.name}")) for kind, python in
                  ((BasicPitch, args.basic_pitch), (Transkun, args.transkun)) if python]
        rows = piano_rows(piano_items(Path(args.recordings), tuple(args.piano)), transcriber, others)
        command = (f"OMP_NUM_THREADS=1 python benchmarks/transcription.py --model {args.model} --piano "
                   f"{' '.join(args.piano)}" + "".join(f" --{other.name} PYTHON" for other in others))
        write_results(out / f"transcription_{name}_piano", piano_text(rows, command),
                      dict(model=args.model, torch=torch.__version__, processor=processor(), rows=rows))
        return
    split = PieceBank.load(args.pieces).split()
    if args.tune:
        rows = tune(transcriber, split["valid"], args.count)
        fonts = sum(font.startswith((SEEN_SOUNDFONT, ALSO_SEEN_SOUNDFONT)) for font in soundfonts())
        write_results(out / f"transcription_{name}_tuning",
                      tuning_text(rows, command + " --tune", 2 * fonts * args.count), dict(rows=rows))
        return
    basic_pitch = (BasicPitch(args.basic_pitch, Path(args.cache)) if args.basic_pitch
                   else print("basic-pitch: not named, left out"))
    items = list(all_items(split["test"], args.count, args.recordings))
    separator = None if args.separator == "none" else Separator.from_pretrained(args.separator)
    answers = transcribe_all(items, transcriber, separator, basic_pitch)
    together, each = summary(answers)
    instruments, cost = by_instrument(answers, INSTSEP), costs(answers)
    picked = getattr(transcriber, "pick", None)
    text = (f"# Transcription: {name}\n\n`{command}{' --basic-pitch PYTHON' if basic_pitch else ''}`\n\n"
            f"{args.count} mixtures of 8 s for each soundfont ({SEEN_SOUNDFONT} was seen in training, "
            f"{HELD_OUT_SOUNDFONT} is held out), held-out pieces; octaves: guitar and piano on the same notes, two "
            "octaves apart; recordings: R01 to R04. A note counts as found if its pitch is right and its onset within "
            "50 ms; with offset, if that is also within 20 % of its length (or 50 ms); multi-instrument, if the "
            "instrument is right too (with offsets, as MT3 defines it). Leakage: the share of notes rightly found that "
            "went to another instrument. True notes are those that begin inside the excerpt. basic-pitch does not "
            "distinguish instruments. Instruments given: `--instruments` with those that sound in the item. Ceilings: "
            "the true notes through MT3's tokens, or through the grid of frames, and back."
            + (f" Thresholds: onset {picked.onset:g}, frame {picked.frame:g}." if picked else "")
            + "\n\nAll notes of a set together:\n\n" + format_table(together, digits=3)
            + "\n\nMean and median over the items of a set:\n\n" + format_table(each, digits=3)
            + "\n\ninstsep by instrument, all notes of a set together; mean and median over the items in which it "
            "plays; missed: true notes not found, false: notes found where there is none of this instrument:\n\n"
            + format_table(instruments, digits=3)
            + f"\n\nProcessor seconds for a second of sound, on one thread of {processor()}, basic-pitch's from its "
              "first run on the files:\n\n" + format_table(cost, digits=3) + "\n")
    about = dict(model=args.model, separator=args.separator, count=args.count, torch=torch.__version__,
                 processor=processor(),
                 thresholds=vars(picked) if picked else None, seen=SEEN_SOUNDFONT, held_out=HELD_OUT_SOUNDFONT,
                 pooled=together, items_mean_median=each,
                 by_instrument=instruments, cost=cost)
    single = [{key: a[key] for key in ("set", "item", "kind", "system")}
              | {key: round(a["scores"][key], 4) for key in SHORT}
              for a in answers if "ceiling" not in a["system"]]
    write_results(out / f"transcription_{name}", text, dict(about, items=single))


if __name__ == "__main__": main()
