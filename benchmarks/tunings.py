"""What other tunings than twelve equal tones do to a separator and three transcribers, and what measured cents recover.

    OMP_NUM_THREADS=1 python benchmarks/tunings.py --pieces pieces.npz --basic-pitch ../basic-pitch/bin/python

Passages of pieces of the test split, played by recorded notes that no shipped model was trained with (`--notes`, a
folder BANK/INSTRUMENT/NOTE.ogg; the Iowa samples and FreePats' Kawai piano). Each passage is played in every tuning by
the same players; the passage in twelve equal tones at A = 440 Hz is its own control. trio-mt3, basic-pitch and the
dearer remedies are tried in some of the tunings. Three more ensembles, of metallophones and bars, of plucked strings
and of flutes and reeds, play a quarter of the passages in three of the tunings for the transcriber. `--in-tune` more
passages, of other pieces and at A = 437 to 443 Hz, half on recorded notes and half on a soundfont, ask only whether
the tool says of music in tune that it fits. Whether a passage fits twelve equal tones is decided by the same rule
(`estimate_tuning`), from its score and the exact pitches. Everything is measured on what the commands give back: the
separator's stems, the transcribers' notes, `instsep.tunings.measure_cents`. The environment of basic-pitch is
described in `benchmarks/transcription.py`; without it, it is left out. (Of the three ensembles, steel drum, harp and
bassoon are of banks that the last training took out-of-set instruments from; all else is of banks it never had.)
`--scl` adds tunings of your own. Nothing is retuned by itself (a4=440); what that brings is in `concert_pitch.py`.

Writes benchmarks/results/tunings.json and .md, and keeps every finished passage in --cache, so that a stopped run goes
on.
"""
import hashlib
import json
import math
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from instsep.core import TRIO
from instsep.files.transcription import load_transcriber
from instsep.metrics import format_table, si_sdr_improvement
from instsep.mixtures import INSTRUMENTS, Mixtures
from instsep.music.notes import CONTOUR_SECONDS, Note, Transcription
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.audio import save
from instsep.sound.notebank import record_folder, render
from instsep.sound.soundfont import default_soundfont, synthesize
from instsep.tunings import SCALES, detuned, estimate_tuning, measure_cents, read_scl, tune, with_cents
from common import (BASIC_PITCH, HELD_OUT_WEIGHTS, PIECES, RESULTS, arguments, processor, run_elsewhere,
                    shipped_weights_id, write_results)

RATE = 22050
NOTES = "../shared/reference/notes"
CONTROL = "twelve equal"
TUNINGS = {  # name -> scale, tonic, A4 in Hz
    CONTROL: (CONTROL, 60, 440.0), "twelve equal, A = 432 Hz": (CONTROL, 60, 432.0),
    "twelve equal, A = 415 Hz": (CONTROL, 60, 415.0), "twelve equal, A = 442 Hz": (CONTROL, 60, 442.0),
    "quarter-comma meantone": ("quarter-comma meantone", 60, 440.0), "nineteen equal": ("nineteen equal", 60, 440.0),
    "Rast": ("Rast", 60, 440.0), "Bayati": ("Bayati", 62, 440.0),
    "Bhairav, of these shruti": ("Bhairav, of these shruti", 60, 440.0),
    "blues, measured": ("blues, measured", 60, 440.0),
    "slendro, Kanjutmesem": ("slendro, Kanjutmesem", 60, 440.0),
    "slendro, mean of 30": ("slendro, mean of 30", 60, 440.0), "pelog, Kanjutmesem": ("pelog, Kanjutmesem", 60, 440.0)}
FEW_TUNINGS = (CONTROL, "Rast", "slendro, Kanjutmesem")
SECOND = (CONTROL, "twelve equal, A = 432 Hz", "Rast")     # in which remedies that hear everything twice are tried
ENSEMBLES = {  # name -> who plays the parts of clarinet, guitar and piano
    "clarinet, guitar, piano": ("iowa_mis/clarinet", "iowa_mis/guitar_nylon", "freepats_kw/piano"),
    "metallophones and bars": ("iowa_mis/vibraphone", "jlearman/steel_drum", "iowa_mis/marimba"),
    "plucked strings": ("iowa_mis/violin_pizz", "iowa_mis/cello_pizz", "vsco_and_others/harp"),
    "flutes and reeds": ("iowa_mis/flute", "iowa_mis/oboe", "vsco_and_others/bassoon")}
REAL = "clarinet, guitar, piano"
FRAMES, MT3, BASIC = "trio-notes", "trio-mt3", "basic-pitch"
# s; cents within which a note is found; within which a pitch is right
ONSET, NEAR, KEPT = 0.05, 70, 15


# ---- what is played

def excerpts(pieces, seconds: float, seed: int, taken: set):
    "Passages of pieces, one of each work, given to the trio: the notes of each instrument."
    mixtures = Mixtures(list(pieces), None, {name: ["0"] for name in TRIO}, instruments=TRIO, sample_rate=RATE,
                        seconds=seconds, kinds=dict(parts=1.0), absent=0.0, augmentation=(), seed=seed)
    work_of = {piece.id: (piece.composer, piece.work) for piece in pieces}
    for index in range(10_000):
        score = mixtures.score(index)
        piece, notes = next(iter(score.pieces.values())), score.to_notes()
        if work_of[piece] in taken or len(notes) < 15 or len({note.program for note in notes}) < 2: continue
        taken.add(work_of[piece])
        yield piece, notes


class Players:
    "Ensembles of recorded notes, and a soundfont; each instrument is read when it is first needed."
    def __init__(self, folder: str, soundfont: str | Path):
        self.folder, self.soundfont, self.banks = Path(folder), Path(soundfont), {}

    def bank(self, name: str):
        if name not in self.banks:
            self.banks[name] = record_folder(self.folder / name, name, sample_rate=RATE, progress=False)
        return self.banks[name]

    def play(self, own: Transcription, seconds: float, by: str, fade=None) -> np.ndarray:  # -> (samples,)
        if by == "soundfont":
            return synthesize(own, self.soundfont, cents=own.cents, sample_rate=RATE, tail=1.0).mean(0)
        keys = np.array([[note.onset, note.offset, note.pitch, note.velocity] for note in own])
        return render(self.bank(by), keys, by, seconds=seconds, detune=own.cents, fade=fade)

    def __call__(self, tuned: Transcription, seconds: float, ensemble: str,
                 fade: np.ndarray | None = None) -> np.ndarray:  # (notes,) dB per second -> (instruments, samples)
        "The sound of each instrument; all as loud as each other."
        stems = np.zeros((len(TRIO), round(seconds * RATE)), np.float32)
        for k, name in enumerate(TRIO):
            mine = [index for index, note in enumerate(tuned) if note.program in INSTRUMENTS[name].programs]
            if not mine: continue
            own = Transcription([tuned[index] for index in mine], cents=tuned.cents[mine])
            wave = self.play(own, seconds, ENSEMBLES[ensemble][k] if ensemble in ENSEMBLES else "soundfont",
                             None if fade is None else fade[mine])
            wave = wave[:stems.shape[1]]
            stems[k, :len(wave)] = 0.05 * wave / max(1e-6, np.sqrt(np.square(wave).mean()))
        return stems / max(1.0, np.abs(stems.sum(0)).max() / 0.95)


# ---- what is written

def basic_pitch(python: str, mixtures: list[np.ndarray]) -> list[tuple[Transcription, float]]:
    "What basic-pitch writes, with its own pitch bends as cents, and its processor seconds."
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{k}.wav") for k in range(len(mixtures))]
        for path, mixture in zip(paths, mixtures): save(path, mixture[None], RATE, subtype="FLOAT")
        found = run_elsewhere(python, BASIC_PITCH, paths, "basic-pitch")
    answers = [found[path] for path in paths]
    written = []
    for answer in answers:
        rows = [(*row, bend) for row, bend in zip(answer["notes"], answer["bends"]) if row[1] > max(row[0], 0.0)]
        notes = [Note(max(on, 0.0), off, int(pitch), 80) for on, off, pitch, *_ in rows]
        # its bends are a third of a semitone up where music is in tune; as many as fit its frames of 11.6 ms
        bends = [np.array(row[4]) - 100 / 3 for row in rows]
        steps = [np.arange(max(2, round((note.offset - note.onset) / CONTOUR_SECONDS))) for note in notes]
        contours = [np.interp(CONTOUR_SECONDS * own, np.arange(len(bend)) * 256 / 22050, bend)
                    for own, bend in zip(steps, bends)]
        written.append((Transcription(notes, [row[3] for row in rows], cents=[float(np.median(bend)) for bend in bends],
                                      contours=contours), answer["cpu"]))
    return written


def on_two_grids(transcriber, mixture: np.ndarray, written: Transcription, cents, sure) -> Transcription:
    """The notes of a transcription, and of another one, of everything half a semitone higher, those near its keys: of
    one tone found twice the surer is kept."""
    higher = transcriber(detuned(mixture[None], RATE, 50), RATE, progress=False)
    slower = 2 ** (50 / 1200)
    again = Transcription([Note(note.onset * slower, note.offset * slower, note.pitch, note.velocity, note.program)
                           for note in higher], higher.confidence)
    more, how = measure_cents(mixture, again, RATE)              # tones on the second's keys lie at -50
    bent = with_cents(written, cents, sure)
    near = list(zip(bent.confidence, bent, bent.cents))
    near += [(c, note, place) for c, note, place, s in zip(again.confidence, again, more, how)
             if s > 0.5 and abs(place + 50) <= 20]
    notes, confidence, places = [], [], []
    for sureness, note, place in sorted(near, key=lambda row: -row[0]):
        at = 100 * note.pitch + place
        if any(note.program == kept.program and abs(note.onset - kept.onset) < 0.08
               and abs(at - 100 * kept.pitch - c) < 40 for kept, c in zip(notes, places)): continue
        notes.append(note), confidence.append(sureness), places.append(float(place))
    return Transcription(notes, confidence, cents=places)


def timed(function, *inputs, **options):
    "What a function gives back, and the processor seconds that it took."
    begun = time.process_time()
    return function(*inputs, **options), time.process_time() - begun


# ---- how right it is

def found_pairs(truth, sounding: np.ndarray, written) -> list[tuple[int, int]]:
    """Played notes and written ones: onsets within 50 ms, keys within 70 cents of what sounds, the nearest first,
    whoever is said to play."""
    options = sorted((abs(note.onset - other.onset), i, j) for i, note in enumerate(truth)
                     for j, other in enumerate(written)
                     if abs(note.onset - other.onset) <= ONSET and abs(100 * other.pitch - sounding[i]) <= NEAR)
    pairs, ours, theirs = [], set(), set()
    for _, i, j in options:
        if i not in ours and j not in theirs: pairs.append((i, j)), ours.add(i), theirs.add(j)
    return pairs


def judged(truth, written: Transcription) -> dict:
    "How a transcription compares with what was played; `cents`, where there are any, count as written."
    sounding = np.array([100 * note.pitch for note in truth]) + truth.cents
    places = np.array([100 * note.pitch for note in written]) + (0 if written.cents is None else written.cents)
    pairs = found_pairs(truth, sounding, written)
    errors = {j: round(float(places[j] - sounding[i]), 2) for i, j in pairs}
    step = np.round(sounding - 1200 * np.floor(sounding / 1200)).astype(int) % 1200      # pitch classes as they sound
    of_step = {int(at): float(np.median([errors[j] for i, j in pairs if step[i] == at]))
               for at in np.unique(step) if any(step[i] == at for i, _ in pairs)}
    return dict(played=len(truth), written=len(written), f1=2 * len(pairs) / max(1, len(truth) + len(written)),
                notes=[[round(float(c), 3), errors.get(j)] for j, c in enumerate(np.nan_to_num(written.confidence))],
                steps=len(of_step), steps_kept=sum(abs(x) <= KEPT for x in of_step.values()))


def _second_hearings(tuned, mixture, written, cents, sure, tuning, transcriber, out: dict, cpu: dict) -> None:
    "What a second transcription adds: of the recording half a semitone higher, and of it moved to A = 440 Hz."
    both, cpu["two grids"] = timed(on_two_grids, transcriber, mixture, written, cents, sure)
    out["two grids"], out["retuned first"] = judged(tuned, both), out["measured cents"]
    if tuning.fits: return
    moved = 1200 * math.log2(tuning.a4 / 440)
    again, cpu["retuned first"] = timed(transcriber, detuned(mixture[None], RATE, -moved), RATE, progress=False)
    slower = 2 ** (-moved / 1200)
    back = Transcription([Note(note.onset * slower, note.offset * slower, note.pitch, note.velocity, note.program)
                          for note in again], again.confidence)
    out["retuned first"] = judged(tuned, with_cents(back, *measure_cents(mixture, back, RATE)))


def look(tuned, stems, models: dict, *, separate: bool, remedies: bool, mt3: bool) -> dict:
    "All that is measured on one passage in one tuning, but basic-pitch."
    mixture, out, cpu = stems.sum(0), {}, {}
    written, cpu["as keys"] = timed(models["frames"], mixture, RATE, progress=False)
    (cents, sure), cpu["measured cents"] = timed(measure_cents, mixture, written, RATE)
    tuning = estimate_tuning(written, cents, sure)
    row = dict(fits=bool(tuning.fits), a4=tuning.a4, furthest=tuning.furthest, steps_seen=len(tuning.steps))
    if models.get("only_fits"): return row
    out[FRAMES], out["measured cents"] = judged(tuned, written), judged(tuned, with_cents(written, cents, sure))
    known, how = measure_cents(mixture, tuned, RATE)
    out["known notes"] = judged(tuned, Transcription(list(tuned), np.ones(len(tuned)), cents=np.nan_to_num(known)))
    if not separate: return row | dict(answers=out)
    if remedies: _second_hearings(tuned, mixture, written, cents, sure, tuning, models["frames"], out, cpu)
    if mt3:
        tokens, cpu[MT3] = timed(models["mt3"], mixture, RATE, progress=False)
        out[MT3] = judged(tuned, tokens)
        out["mt3, measured cents"] = judged(tuned, with_cents(tokens, *measure_cents(mixture, tokens, RATE)))
    estimate, cpu["separator"] = timed(models["separator"].separate, mixture[None], RATE, a4=440.0)
    with np.errstate(invalid="ignore"):
        gained = si_sdr_improvement(np.stack([estimate[name][0].numpy() for name in TRIO]), stems,
                                    np.broadcast_to(mixture, stems.shape))
    return row | dict(answers=out, gained=[round(float(x), 3) if np.isfinite(x) else None for x in gained],
                      cpu={name: round(value, 3) for name, value in cpu.items()})


# ---- tables

def mean_and_error(values) -> tuple[float, float]:
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def of_transcriber(name: str, rows: list[dict], control: dict[str, dict]) -> dict:
    "One transcriber in one tuning, over the passages; changes are against the same passage in the control."
    answers = [row["answers"][name] for row in rows]
    before = [control[row["piece"]]["answers"][name] for row in rows]
    played, written = sum(a["played"] for a in answers), sum(a["written"] for a in answers)
    notes = [(c, error) for a in answers for c, error in a["notes"]]
    found = np.array([abs(error) for _, error in notes if error is not None])
    change, error = mean_and_error([a["f1"] - b["f1"] for a, b in zip(answers, before)])
    # as sure as of three quarters of the notes that are right in the control
    sure = np.percentile([c for row in control.values() for c, e in row["answers"][name]["notes"] if e is not None], 25)
    wrong = sum(c >= sure and e is not None and abs(e) > KEPT for c, e in notes)
    return dict(f1=float(np.mean([a["f1"] for a in answers])), f1_change=change, f1_change_error=error,
                played=played, written=written, found=len(found), silent_wrong=wrong / played,
                loud_wrong=(played + written - 2 * len(found)) / played,
                confidence=float(np.mean([c for c, e in notes if e is not None])),
                median=float(np.median(found)), mean=float(found.mean()), within_15=float((found <= KEPT).mean()),
                steps=sum(a["steps"] for a in answers), steps_kept=sum(a["steps_kept"] for a in answers))


def reliability(name: str, rows: list[dict]) -> list[dict]:
    "In ten bins of confidence: how many notes, how sure, how many of them are in the right key, how many in place."
    notes = [note for row in rows if name in row["answers"] for note in row["answers"][name]["notes"]]
    bins = []
    for k in range(10):
        own = [(c, e) for c, e in notes if min(9, int(10 * c)) == k]
        bins.append(dict(notes=len(own), confidence=float(np.mean([c for c, _ in own])) if own else None,
                         key=sum(e is not None and abs(e) <= 50 for _, e in own),
                         place=sum(e is not None and abs(e) <= KEPT for _, e in own)))
    return bins


def calibration_error(bins: list[dict], right: str) -> float:
    "Expected calibration error: how far confidence is from the share that is right, over all notes."
    total = sum(b["notes"] for b in bins)
    return sum(abs(b["notes"] * b["confidence"] - b[right]) for b in bins if b["notes"]) / max(1, total)


def separators(rows: list[dict], control: dict[str, dict]) -> dict:
    change = [new - old for row in rows for new, old in zip(row["gained"], control[row["piece"]]["gained"])
              if new is not None and old is not None]
    mean, error = mean_and_error(change)
    return dict(gained=float(np.mean([x for row in rows for x in row["gained"] if x is not None])), change=mean,
                change_error=error, stems=len(change), warned=sum(not row["fits"] for row in rows))


SYSTEMS = (FRAMES, "measured cents", "retuned first", "two grids", MT3, "mt3, measured cents", BASIC,
           "basic-pitch, its bends", "known notes")


def tables_of(rows: list[dict], systems) -> dict:
    control = {row["piece"]: row for row in rows if row["tuning"] == CONTROL}
    return {tuning: dict(pieces=len(own), **(separators(own, control) if "gained" in own[0] else {}),
                         systems={name: of_transcriber(name, own, control) for name in systems
                                                  if all(name in row["answers"] for row in own)})
            for tuning in dict.fromkeys(row["tuning"] for row in rows)
            if (own := [row for row in rows if row["tuning"] == tuning])}


def report(result: dict) -> str:
    "The JSON's tables in words."
    tuned, systems = result["tunings"], result["systems"]
    change = lambda name, value, error, digits: "" if name == CONTROL else f"{value:+.{digits}f} ± {error:.{digits}f}"
    first = []
    for name, row in tuned.items():
        line = {"tuning": name, "separator gains (dB)": f"{row['gained']:.1f}",
                "change": change(name, row["change"], row["change_error"], 1)}
        for system in (FRAMES, MT3, BASIC):
            if system not in systems: continue
            one = row["systems"].get(system)
            line |= dict.fromkeys((f"{system}: {what}" for what in ("F1", "change", "silent-wrong (%)",
                                                                    "loud-wrong (%)", "confidence")), "")
            if one: line |= {f"{system}: F1": f"{one['f1']:.2f}",
                     f"{system}: change": change(name, one["f1_change"], one["f1_change_error"], 2),
                     f"{system}: silent-wrong (%)": f"{100 * one['silent_wrong']:.0f}",
                     f"{system}: loud-wrong (%)": f"{100 * one['loud_wrong']:.0f}",
                     f"{system}: confidence": f"{one['confidence']:.2f}"}
        first.append(line)
    cell = lambda one: (f"{one['median']:.1f}, {100 * one['within_15']:.0f} %, {one['steps_kept']} of {one['steps']}, "
                        f"{one['f1']:.2f}")
    second = [{"tuning": name} | {system: cell(row["systems"][system]) if system in row["systems"] else ""
                                  for system in systems} for name, row in tuned.items()]
    third = [{"ensemble": ensemble, "tuning": name, "onset F1": f"{row['systems'][FRAMES]['f1']:.2f}",
              "as keys, median (cents)": f"{row['systems'][FRAMES]['median']:.1f}",
              "measured": f"{row['systems']['measured cents']['median']:.1f}",
              "within 15 (%)": f"{100 * row['systems']['measured cents']['within_15']:.0f}",
              "notes known, median": f"{row['systems']['known notes']['median']:.1f}",
              "within 15 (%) ": f"{100 * row['systems']['known notes']['within_15']:.0f}"}
             for ensemble, table in result["ensembles"].items() for name, row in table.items()]
    w = result["warning"]
    fourth = [{"transcriber": name, "music": music, "confidence less right key (ECE)": f"{found['error_key']:.2f}",
               "less right place": f"{found['error_place']:.2f}"}
              for name, groups in result["calibration"].items() for music, found in groups.items()]
    costs = ", ".join(f"{name} {value:.2f}" for name, value in result["cpu"].items())
    return f"""# Other tunings than twelve equal tones

`{result['command']}`

{result['pieces']} passages of {result['seconds']:g} s, each of another work of the test split, played by recorded \
notes of clarinet, guitar and piano that
no shipped model was trained with, in each tuning by the same players. Changes are against the same passage in twelve \
equal tones, with their standard error.
A note is found if one is written within 50 ms of its onset and 70 cents of its pitch. *Silent-wrong*: written more \
than 15 cents from where it sounds,
and as surely as three quarters of the notes that are right in twelve equal tones; as a share of the notes played. \
*Loud-wrong*: notes missed and notes invented, as a share of those played.

{format_table(first)}

Remedies. In each cell: how far what is written lies from what sounds (median, cents), how many of the found notes are \
within 15 cents of it,
how many of the pitch classes that are found are written within 15 cents of their place, and onset F1. (In slendro and \
pelog, whose octaves are wider, a step counts anew in each.)

{format_table(second)}

Processor seconds for a second of sound, on one thread: {costs}.

Other instruments, which the transcriber does not know: the same passages, and what is measured where the notes are \
known.

{format_table(third)}

The one line that says that a recording does not fit twelve equal tones: right for {w['right']} of {w['recordings']} \
recordings ({100 * w['right'] / w['recordings']:.0f} %).
Of {w['equal']['recordings']} in twelve equal tones at A = 437 to 443 Hz, {w['equal']['warned']} were warned of. By \
the score and the exact pitches {w['in_tune']} fit, of which {w['in_tune_warned']} were
warned of, and {w['out_of_tune']} do not, of which {w['out_of_tune_warned']} were. By tuning, passages that do not fit \
and warnings: {'; '.join(f"{name} {one['should']} and {one['warned']}" for name, one in w['of_tuning'].items())}.

Calibration: how far confidence is from the share of notes that are right, over ten bins.

{format_table(fourth)}

{result['machine']}; weights {result['weights']}
"""


# ---- the run

class Cache:
    "Rows that were measured already with the weights of the package, one JSON a line."
    def __init__(self, path: str):
        self.path, self.weights = Path(path), shipped_weights_id()
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.rows = {row["key"]: row for row in map(json.loads, lines)}

    def __call__(self, key, make) -> dict:
        digest = hashlib.blake2b(repr((self.weights, key)).encode(), digest_size=8).hexdigest()
        if digest not in self.rows:
            self.rows[digest] = make() | dict(key=digest)
            with self.path.open("a") as file: file.write(json.dumps(self.rows[digest]) + "\n")
        return self.rows[digest]


def fits(notes, scale: str, tonic: int, a4: float) -> bool:
    "Whether a passage fits twelve equal tones, by the tool's own rule, from its score and its exact pitches."
    tuned = tune(notes, SCALES[scale], tonic=tonic, a4=a4)
    return estimate_tuning(tuned, tuned.cents, np.ones(len(tuned))).fits


def load_models(separate: bool = True) -> dict:
    "Those that were trained without the notes that are played; what `trio-mt3` reads was not."
    found = dict(frames=partial(load_transcriber(HELD_OUT_WEIGHTS / "trio-notes", device="cpu"), a4=440.0))
    if separate:
        found |= dict(mt3=load_transcriber("trio-mt3", device="cpu"),
                      separator=Separator.from_pretrained(HELD_OUT_WEIGHTS / "trio-informed"))
    return found


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank (instsep pieces)")
    parser.add_argument("--notes", default=NOTES, help="folder of recorded notes")
    parser.add_argument("--soundfont", default=str(default_soundfont()), help="of half of the passages in tune")
    parser.add_argument("--basic-pitch", metavar="PYTHON", help="of an environment with basic-pitch")
    parser.add_argument("--count", type=int, default=8, help="passages in every tuning")
    parser.add_argument("--in-tune", type=int, default=48, help="more passages that are in tune")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--scl", nargs="*", default=[], help="more tunings: Scala files, from middle C on")
    parser.add_argument("--split", default="test")
    parser.add_argument("--cache", default="tunings_cache.jsonl")
    parser.add_argument("--name", default="tunings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bank, cache, players = PieceBank.load(args.pieces), Cache(args.cache), Players(args.notes, args.soundfont)
    models, random, taken = {}, np.random.default_rng(1), set()
    for path in args.scl:
        SCALES[Path(path).stem] = read_scl(path)
        TUNINGS[Path(path).stem] = (Path(path).stem, 60, 440.0)

    def measured(piece, notes, name, tuning, ensemble, separate, only_fits=False):
        def make():
            if not models: models.update(load_models())
            scale, tonic, a4 = tuning
            tuned = tune(notes, SCALES[scale], tonic=tonic, a4=a4)
            stems = players(tuned, args.seconds, ensemble)
            found = look(tuned, stems, models | dict(only_fits=only_fits), separate=separate,
                         remedies=separate and name in SECOND, mt3=name in {*SECOND, *FEW_TUNINGS})
            print(piece, "|", ensemble, "|", name, "| fits", found["fits"], f"{found['a4']:.1f} Hz, furthest "
                  f"{found['furthest']:.0f}", flush=True)
            return found | dict(piece=piece, tuning=name, ensemble=ensemble)
        return cache((notes, tuning, ensemble, separate, only_fits, args.seconds), make)

    passages, extra, source = [], [], excerpts(bank.split()[args.split], args.seconds, 21, taken)
    for _ in range(args.count):
        passages.append(next(source))
        extra += [next(source) for _ in range(args.in_tune // args.count)]
    rows = [measured(piece, notes, name, tuning, REAL, True)
            for piece, notes in passages for name, tuning in TUNINGS.items()]
    in_tune = [measured(piece, notes, "in tune", (CONTROL, 60, round(float(random.uniform(437, 443)), 2)),
                        REAL if k % 2 else "soundfont", False, True) for k, (piece, notes) in enumerate(extra)]
    others = {ensemble: [measured(piece, notes, name, TUNINGS[name], ensemble, False)
                         for piece, notes in passages[:args.count // 4] for name in FEW_TUNINGS]
              for ensemble in ENSEMBLES if ensemble != REAL}
    systems = list(SYSTEMS)
    some = list(dict.fromkeys((*SECOND, *FEW_TUNINGS)))
    if args.basic_pitch:
        def make():
            tuned = [tune(notes, SCALES[scale], tonic=tonic, a4=a4)
                     for _, notes in passages for scale, tonic, a4 in map(TUNINGS.get, some)]
            found = basic_pitch(args.basic_pitch, [players(one, args.seconds, REAL).sum(0) for one in tuned])
            return dict(plain=[judged(one, Transcription(list(w), w.confidence)) for one, (w, _) in zip(tuned, found)],
                        bent=[judged(one, w) for one, (w, _) in zip(tuned, found)], cpu=[cpu for _, cpu in found])
        own = cache((passages, some, BASIC, args.seconds), make)
        for k, row in enumerate(row for row in rows if row["tuning"] in some):
            row["answers"] |= {BASIC: own["plain"][k], "basic-pitch, its bends": own["bent"][k]}
            row["cpu"] = row["cpu"] | {BASIC: own["cpu"][k]}
    else: systems = [name for name in systems if not name.startswith(BASIC)]
    should_fit = {}
    for piece, notes in passages:
        for name, (scale, tonic, a4) in TUNINGS.items(): should_fit[piece, name] = fits(notes, scale, tonic, a4)
    fitting = in_tune + [row for row in rows if should_fit[row["piece"], row["tuning"]]]
    not_fitting = [row for row in rows if not should_fit[row["piece"], row["tuning"]]]
    equal = in_tune + [row for row in rows if row["tuning"] == CONTROL]
    warned = lambda some: sum(not row["fits"] for row in some)
    calibration = {name: {music: dict(bins=(bins := reliability(name, some)), error_key=calibration_error(bins, "key"),
                                      error_place=calibration_error(bins, "place"))
                          for music, some in (("in tune", [r for r in rows if r["tuning"] == CONTROL]),
                                              ("out of tune", not_fitting))}
                   for name in (FRAMES, MT3, BASIC) if name in systems}
    cpu = {name: float(np.mean([row["cpu"][name] for row in rows if name in row["cpu"]])) / args.seconds
           for name in dict.fromkeys(name for row in rows for name in row["cpu"])}
    result = dict(
        command=f"python benchmarks/tunings.py --pieces pieces.npz --count {args.count} --in-tune {args.in_tune} "
                f"--seconds {args.seconds:g}" + " --basic-pitch PYTHON" * bool(args.basic_pitch),
        seconds=args.seconds, pieces=len(passages), works=[piece for piece, _ in passages], systems=systems,
        players=ENSEMBLES, tunings=tables_of(rows, systems), calibration=calibration, cpu=cpu,
        ensembles={name: tables_of(some, (FRAMES, "measured cents", "known notes")) for name, some in others.items()},
        warning=dict(recordings=len(fitting) + len(not_fitting),
                     right=len(fitting) - warned(fitting) + warned(not_fitting), in_tune=len(fitting),
                     in_tune_warned=warned(fitting), out_of_tune=len(not_fitting),
                     out_of_tune_warned=warned(not_fitting),
                     equal=dict(recordings=len(equal), warned=warned(equal)),
                     of_tuning={name: dict(should=sum(not should_fit[row["piece"], name] for row in own),
                                           warned=warned(own), passages=len(own)) for name in TUNINGS
                                for own in [[row for row in rows if row["tuning"] == name]]}),
        weights=shipped_weights_id(),
        machine=f"{processor()}, torch {torch.__version__}, one thread")
    write_results(RESULTS / args.name, report(result), result)


if __name__ == "__main__": main()
