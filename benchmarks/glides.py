"""How much of a glide is kept: estimators of pitch compared, and what the transcriber's notes explain.

    OMP_NUM_THREADS=1 python benchmarks/glides.py --basic-pitch ../basic-pitch/bin/python

Recorded notes (`--notes`, as in `benchmarks/tunings.py`) are read faster and slower along curves: a *meend* from one
step to another, a *kampita* (an oscillation between two), a glissando, a bend of the blues, a vibrato, and a note that
stays where it is. Each phrase is played alone, and over a drone of plucked strings that is as loud. A frame counts
where the pitch moves: by more than 10 cents within a tenth of a second. It is right within 25 cents.

First each estimator is given when the notes sound, and scored on the frames of the glides. Estimators that are not
installed are left out with a line: librosa's pyin, swift-f0, pesto, torchfcpe, torchcrepe. Then the transcriber finds
the notes of clarinet and guitar itself, and as keys, as cents and as contours they are asked where the pitch is; and
so is basic-pitch with its own bends. Last, how many steady notes of passages in tune are taken for glides. Writes
benchmarks/results/glides.json and .md.
"""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from instsep.files.transcription import load_transcriber
from instsep.metrics import format_table
from instsep.music.notes import CONTOUR_SECONDS, Note, Transcription
from instsep.music.pieces import PieceBank
from instsep.sound.audio import resample
from instsep.sound.notebank import NoteBank, record_folder, render
from instsep.sound.soundfont import default_soundfont
from instsep.tunings import SCALES, follow_pitch, measure_cents, tune, with_cents
from common import HELD_OUT_WEIGHTS, PIECES, RESULTS, arguments, processor, shipped_weights_id, write_results
from tunings import CONTROL, NOTES, RATE, REAL, Cache, Players, basic_pitch, excerpts, timed

PLAYERS = dict(clarinet="iowa_mis/clarinet", guitar="iowa_mis/guitar_nylon", flute="iowa_mis/flute",
               violin="vsco_and_others/violin", voice="berklee44/voice_female_ah", harp="vsco_and_others/harp")
TRIO_PLAYERS = ("clarinet", "guitar")
DRONE = "vsco_and_others/guitar-nylon"
KINDS = ("meend", "kampita", "glissando", "bend", "vibrato", "steady")
NEAR, FRAME = 25, 0.01     # cents; s, between the values of a curve


# ---- what is played

def curve(kind: str, seconds: float, random: np.random.Generator) -> np.ndarray:  # cents every 10 ms
    "How a note moves from where it begins."
    t = FRAME * np.arange(round(seconds / FRAME))
    if kind == "meend":
        size, during = random.choice([-500, -300, -200, 200, 300, 400, 500]), random.uniform(0.25, 0.55)
        return size * (0.5 - 0.5 * np.cos(np.pi * np.clip((t - 0.35 * seconds) / during, 0, 1)))
    if kind == "kampita":
        size, rate = random.uniform(100, 200), random.uniform(3.5, 5)
        return size * (0.5 - 0.5 * np.cos(2 * np.pi * rate * np.maximum(0, t - 0.1)))
    if kind == "glissando":
        return random.choice([-700, -500, 500, 700]) * np.clip((t - 0.15) / (seconds - 0.3), 0, 1)
    if kind == "bend":
        back = 1 - np.clip((t - 0.6 * seconds) / 0.2, 0, 1)
        return random.uniform(100, 200) * np.clip(t / 0.2 - 0.5, 0, 1) * back
    if kind == "vibrato":
        depth, rate = random.uniform(30, 50), random.uniform(5, 6)
        return depth * np.sin(2 * np.pi * rate * t) * np.clip(t / 0.3, 0, 1)
    return 0 * t


def glided(bank: NoteBank, name: str, start: float, cents: np.ndarray) -> np.ndarray:  # (samples,)
    "A recorded note, read faster and slower along a curve from `start`, a MIDI pitch."
    rows = bank._rows[name, bank.of(name)[0]]
    row = rows[np.argmin(np.abs(bank.table["pitch"][rows] - start - cents.mean() / 100))]
    wave, count = bank.wave(row), round(len(cents) * FRAME * RATE)
    at = np.interp(np.arange(count) / RATE / FRAME, np.arange(len(cents)), cents)
    place = np.cumsum(2 ** ((start + at / 100 - bank.table["pitch"][row]) / 12))
    sound = np.interp(np.minimum(place, len(wave) - 1), np.arange(len(wave)), wave)
    fade = np.minimum(np.arange(count) / (0.004 * RATE), np.arange(count)[::-1] / (0.03 * RATE)).clip(0, 1)
    return 0.07 * sound * fade / max(1e-6, np.sqrt(np.square(sound).mean()))


def phrase(bank: NoteBank, name: str, drone: NoteBank, random: np.random.Generator) -> dict:
    "Six notes that move in six ways; the sound alone and with a drone, and the truth."
    lowest, highest = bank.table["pitch"].min() + 3, bank.table["pitch"].max() - 8
    tonic, at, notes, curves, parts = int(np.clip(random.choice([62, 67]), lowest, highest)), 0.2, [], [], []
    for kind in random.permutation(KINDS):
        cents = curve(str(kind), random.uniform(0.7, 1.2), random)
        start = tonic + random.choice([0, 2, 4, 5, 7]) + random.uniform(-0.3, 0.3)
        parts.append((round(at * RATE), glided(bank, name, start, cents)))
        notes.append(Note(at, at + FRAME * len(cents), round(start)))
        curves.append((str(kind), 100 * start + cents))                            # cents above MIDI's key 0
        at += FRAME * len(cents) + 0.05
    alone = np.zeros(round((at + 0.3) * RATE), np.float32)
    for begin, sound in parts: alone[begin:begin + len(sound)] += sound
    strings = np.array([[0.6 * k, 0.6 * k + 2, tonic - 24 + (7, 12, 12, 0)[k % 4], 70]
                        for k in range(int(at / 0.6) + 1)])
    plucked = render(drone, strings, "guitar", seconds=len(alone) / RATE)[:len(alone)]
    plucked *= np.sqrt(np.square(alone).mean() / np.square(plucked).mean())
    return dict(player=name, notes=notes, curves=curves, alone=alone, drone=alone + plucked,
                strings=[Note(on, off, int(pitch)) for on, off, pitch, _ in strings])


def moving(cents: np.ndarray) -> np.ndarray:  # bool (frames,)
    "The frames in which the pitch moves."
    return np.array([np.ptp(cents[max(0, k - 5):k + 6]) > 10 for k in range(len(cents))])


def score(item: dict, where: Callable) -> dict[str, tuple[int, int]]:  # where: seconds (n,) -> cents, NaN for nothing
    "Of each kind: frames within 25 cents, and frames."
    out = {}
    for note, (kind, cents) in zip(item["notes"], item["curves"]):
        counts = moving(cents) if kind != "steady" else np.ones(len(cents), bool)
        found = where(note.onset + FRAME * np.arange(len(cents)), note)
        with np.errstate(invalid="ignore"): right = np.abs(found - cents) <= NEAR
        out[kind] = int((right & counts).sum()), int(counts.sum())
    return out


def added(scores: list[dict], kinds) -> float:
    return sum(s[k][0] for s in scores for k in kinds) / sum(s[k][1] for s in scores for k in kinds)


# ---- estimators that need no notes: a waveform in, times and Hz out

def estimators(names=None) -> dict[str, Callable]:
    "Those that are installed, or some of them."
    found = {}
    def pyin():
        import librosa
        def run(sound):
            f0 = librosa.pyin(sound, fmin=65, fmax=1100, sr=RATE, hop_length=441)[0]
            return np.arange(len(f0)) * 441 / RATE, f0
        return run
    def swift():
        from swift_f0 import SwiftF0
        detector = SwiftF0(threads=1, spin=False)
        def run(sound):
            result = detector.detect(sound, RATE, fmin=65, fmax=1500)
            return result.timestamps, result.pitch_hz
        return run
    def pesto():
        import pesto
        def run(sound):
            with torch.inference_mode(): times, hz, *_ = pesto.predict(torch.from_numpy(sound), RATE, step_size=10.0)
            return times.numpy().ravel() / 1000, hz.numpy().ravel()
        return run
    def fcpe():
        import torchfcpe
        model = torchfcpe.spawn_bundled_infer_model(device="cpu")
        def run(sound):
            low = torch.from_numpy(resample(sound[None], RATE, 16000))[..., None]      # (1, samples, 1)
            with torch.inference_mode():
                hz = model.infer(low, sr=16000, decoder_mode="local_argmax", threshold=0.006).numpy().ravel()
            return np.arange(len(hz)) * 0.01, np.where(hz > 0, hz, np.nan)
        return run
    def crepe():
        import torchcrepe
        def run(sound):
            low = torch.from_numpy(resample(sound[None], RATE, 16000))
            with torch.inference_mode():
                hz = torchcrepe.predict(low, 16000, hop_length=160, fmin=65, fmax=1500, model="tiny",
                                        decoder=torchcrepe.decode.weighted_argmax, device="cpu", batch_size=512)
            return np.arange(hz.shape[1]) * 0.01, hz.numpy().ravel()
        return run
    for name, make in {"swift-f0": swift, "pesto": pesto, "FCPE": fcpe, "crepe, tiny": crepe,
                       "pyin (librosa)": pyin}.items():
        if names is not None and name not in names: continue
        try: found[name] = make()
        except Exception as error: print(f"{name}: left out ({type(error).__name__}: {error})")  # not there, or other
    return found


def of_track(times: np.ndarray, hz: np.ndarray) -> Callable:
    "Where an estimator's pitch is: at the nearest of its frames."
    with np.errstate(invalid="ignore", divide="ignore"): cents = 6900 + 1200 * np.log2(hz / 440)
    return lambda at, note: cents[np.abs(times[:, None] - at).argmin(0)]


def of_contours(notes, contours) -> Callable:
    "Where contours say that the pitch of a note that is known is."
    by_note = {(note.onset, note.pitch): contour for note, contour in zip(notes, contours)}
    def where(at, note):
        contour = by_note.get((note.onset, note.pitch))
        if contour is None: return np.full(len(at), 100.0 * note.pitch)
        return 100 * note.pitch + np.interp(at - note.onset, CONTOUR_SECONDS * np.arange(len(contour)), contour)
    return where


def of_notes(written: Transcription, contours=None) -> Callable:
    "Where written notes say that the pitch is; the best of those that sound, as a melody's note is one of them."
    def where(at, note, truth):
        best = np.full(len(at), np.nan)
        for k, other in enumerate(written):
            inside = (at >= other.onset - 0.02) & (at <= other.offset + 0.02)
            if not inside.any(): continue
            place = 100.0 * other.pitch + (0 if written.cents is None else written.cents[k])
            if contours is not None and contours[k] is not None:
                place = 100 * other.pitch + np.interp(at - other.onset, CONTOUR_SECONDS * np.arange(len(contours[k])),
                                                      contours[k])
            better = inside & ~(np.abs(best - truth) <= np.abs(place - truth))
            best = np.where(better, place, best)
        return best
    return where


def explained(item: dict, written: Transcription, contours=None) -> dict:
    "The score of written notes."
    where, truths = of_notes(written, contours), {note.onset: cents for note, (_, cents) in
                                                  zip(item["notes"], item["curves"])}
    return score(item, lambda at, note: where(at, note, truths[note.onset]))


# ---- the run

def report(result: dict) -> str:
    first = [{"estimator": name, "alone: glides (%)": f"{100 * row['alone']:.0f}",
              "steady": f"{100 * row['alone_steady']:.0f}",
              "over a drone: glides (%)": f"{100 * row['drone']:.0f}", "steady ": f"{100 * row['drone_steady']:.0f}",
              "CPU s a second": f"{row['cpu']:.3f}"} for name, row in result["estimators"].items()]
    kinds = [{"kind": kind, **{f"{name}": f"{100 * value:.0f}" for name, value in row.items()}}
             for kind, row in result["kinds"].items()]
    second = [{"written as": name, "alone: glides (%)": f"{100 * row['alone']:.0f}",
               "over a drone": f"{100 * row['drone']:.0f}"} for name, row in result["written"].items()]
    f = result["false"]
    return f"""# Glides

`{result['command']}`

{result['phrases']} phrases of recorded notes ({', '.join(result['players'])}), {result['seconds']:.0f} s in all, each \
of six notes: {', '.join(KINDS)}.
Shares of the frames in which the pitch moves that are within {NEAR} cents; for the steady notes, of all their frames. \
The drone is as loud as the melody.

{format_table(first)}

What follow_pitch has right, by kind (%):

{format_table(kinds)}

The transcriber finds the notes itself, of clarinet and guitar only: how many of the same frames lie within {NEAR} \
cents of a note that is written.

{format_table(second)}

Of {f['notes']} steady notes in {f['passages']} passages in tune, {f['taken']} are taken for glides.

{result['machine']}; weights {result['weights']}
"""


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank (instsep pieces)")
    parser.add_argument("--notes", default=NOTES, help="folder of recorded notes")
    parser.add_argument("--basic-pitch", metavar="PYTHON", help="of an environment with basic-pitch")
    parser.add_argument("--estimators", nargs="*", help="names; else all that are installed")
    parser.add_argument("--phrases", type=int, default=1, help="of each instrument")
    parser.add_argument("--passages", type=int, default=4, help="in tune, to count false glides")
    parser.add_argument("--cache", default="glides_cache.jsonl", help="what the estimators found")
    parser.add_argument("--name", default="glides")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cache = Cache(args.cache)
    random, folder = np.random.default_rng(7), Path(args.notes)
    read = lambda path, name: record_folder(folder / path, name, sample_rate=RATE, progress=False)
    drone = read(DRONE, "guitar")
    items = [phrase(bank, name, drone, random) for name, path in PLAYERS.items() for bank in [read(path, name)]
             for _ in range(args.phrases)]
    seconds = sum(len(item["alone"]) for item in items) / RATE
    glides, table, kinds = [kind for kind in KINDS if kind != "steady"], {}, {kind: {} for kind in KINDS}

    def row(name, scores: dict, cpu: float):
        table[name] = dict(cpu=cpu / 2 / seconds)
        for setting, own in scores.items():
            table[name] |= {setting: added(own, glides), f"{setting}_steady": added(own, ["steady"])}
        print(name, table[name], flush=True)
    for name, always in (("follow_pitch", False), ("follow_pitch, of every note", True)):
        scores, spent = {}, 0.0
        for setting in ("alone", "drone"):
            scores[setting] = []
            for item in items:
                notes = item["notes"] + (item["strings"] if setting == "drone" else [])
                contours, cpu = timed(follow_pitch, item[setting], notes, RATE, always=always)
                scores[setting].append(score(item, of_contours(notes, contours)))
                spent += cpu
            if not always:
                for kind in KINDS: kinds[kind][setting] = added(scores[setting], [kind])
        row(name, scores, spent)
    for name, run in estimators(args.estimators).items():
        def make(run=run):
            scores, spent = dict(alone=[], drone=[]), 0.0
            run(items[0]["alone"][:RATE])                      # what only the first call costs is not counted
            for setting in scores:
                for item in items:
                    track, cpu = timed(run, item[setting])
                    spent += cpu
                    scores[setting].append(score(item, of_track(*track)))
            return dict(scores=scores, cpu=spent)
        try: found = cache((name, args.phrases), make)
        except Exception as error: print(f"{name}: left out ({type(error).__name__}: {error})")
        else: row(name, found["scores"], found["cpu"])
    transcriber = load_transcriber(HELD_OUT_WEIGHTS / "trio-notes", device="cpu")
    trio = [item for item in items if item["player"] in TRIO_PLAYERS]
    named = "contours, instruments given (--instruments)"
    written = {name: {} for name in ("keys", "one bend a note (cents)", "contours (--pitch-bend)", named)}
    for setting in ("alone", "drone"):
        scores = {name: [] for name in written}
        for item in trio:
            notes = transcriber(item[setting], RATE, progress=False)
            cents, sure = measure_cents(item[setting], notes, RATE)
            contours = follow_pitch(item[setting], notes, RATE)
            bent = with_cents(notes, cents, sure, contours)
            who = [item["player"], *["guitar"] * (setting == "drone")]
            known = transcriber(item[setting], RATE, instruments=list(dict.fromkeys(who)), progress=False)
            known = with_cents(known, *measure_cents(item[setting], known, RATE),
                               follow_pitch(item[setting], known, RATE))
            scores[named].append(explained(item, known, known.contours))
            for name, answer in (("keys", explained(item, notes)),
                                 ("one bend a note (cents)", explained(item, with_cents(notes, cents, sure))),
                                 ("contours (--pitch-bend)", explained(item, bent, bent.contours))):
                scores[name].append(answer)
        for name in written: written[name][setting] = added(scores[name], glides)
    if args.basic_pitch:
        found = {setting: basic_pitch(args.basic_pitch, [item[setting] for item in trio])
                 for setting in ("alone", "drone")}
        for name, bends in (("basic-pitch, keys", False), ("basic-pitch, its bends", True)):
            written[name] = {setting: added([explained(item, notes if bends else Transcription(list(notes)),
                                                       notes.contours if bends else None)
                                             for item, (notes, _) in zip(trio, own)], glides)
                             for setting, own in found.items()}
    players, bank = Players(args.notes, default_soundfont()), PieceBank.load(args.pieces)
    source, false = excerpts(bank.split()["test"], 6.0, 21, set()), dict(passages=args.passages, notes=0, taken=0)
    for _ in range(args.passages):
        tuned = tune(next(source)[1], SCALES[CONTROL])
        contours = follow_pitch(players(tuned, 6.0, REAL).sum(0), tuned, RATE)
        false["notes"] += len(tuned)
        false["taken"] += sum(contour is not None for contour in contours)
    result = dict(command="python benchmarks/glides.py" + " --basic-pitch PYTHON" * bool(args.basic_pitch),
                  phrases=len(items), seconds=seconds, players=list(PLAYERS), estimators=table,
                  kinds=kinds, written=written, false=false, weights=shipped_weights_id(),
                  machine=f"{processor()}, torch {torch.__version__}, one thread")
    write_results(RESULTS / args.name, report(result), result)


if __name__ == "__main__": main()
