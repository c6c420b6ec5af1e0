"""Recordings that are tuned higher or lower: what stems and notes lose by it, and what retuning brings back.

    python benchmarks/concert_pitch.py --pieces data/pieces.npz --notes ../shared/reference/notes \\
        --recordings ../shared/reference/recordings
    python benchmarks/concert_pitch.py ... "trained on" runs/pitch    # and other weights beside: a name and a folder

Validation pieces through a soundfont that no training used, 16 mixtures of 8 s, and 20 s of each recording of several
instruments, are played faster or slower: every partial moves by so many cents (-32: A = 432 Hz; -101: A = 415 Hz,
where each note lies on a key again). Stems without refinement: not retuned, retuned by what is measured
(`inference.windows.cents_off`), and with A given, which takes back what was done to the recording. Notes of such
mixtures and of whole recordings: not retuned, and retuned. And both for the passages of `tunings.py` in its tunings, to
which retuning is to do no harm, by models that were not trained with these recorded notes. Weights to set beside are
trained by `drums.py train --concert-pitch`. Results go to benchmarks/results/concert_pitch.json and .md.
"""
from itertools import product
from pathlib import Path

import librosa
import numpy as np
import torch

from instsep.core import TRIO
from instsep.frames import FrameTranscriber
from instsep.inference.windows import cents_off
from instsep.metrics import format_table, note_scores, si_sdr_improvement
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.spectral import measure_tuning
from instsep.tunings import SCALES, detuned, key_error, tune
from common import (HELD_OUT_SOUNDFONT, HELD_OUT_WEIGHTS, PIECES, RESULTS, arguments, exact_mixtures, processor,
                    recordings, soundfonts, write_results)
from transcription import recorded_items, soundfont_items
from tunings import RATE as OWN_RATE, REAL, TUNINGS, Players, excerpts, judged

CENTS, RECORDINGS, SECONDS, RATE = (0, -32, 32, -101), ("R01", "R02", "R03", "R04", "R06", "R08", "R09"), 20, 44100
OF_NOTES, WITH_NOTES = (0, -20, -32, 32, -40), ("R01", "R02", "R03", "R04", "R05")
MEASURES = "onset_f1", "multi_instrument_onset_f1", "onset_offset_f1"
WAYS = "not retuned", "retuned", "A given"


def tuned(sound: np.ndarray, cents: float) -> torch.Tensor:  # (samples,) -> (fewer or more samples,)
    return torch.from_numpy(detuned(sound[None].astype(np.float32), RATE, cents)[0])


def following(measured: list[dict]) -> str:
    "How far two measurements follow the known changes of the recordings, against what they find as recorded."
    at_first = {row["item"]: row for row in measured if not row["cents"]}
    def errors(by):
        return [abs(float(key_error([row[by] - at_first[row["item"]][by] - row["cents"]])[0]))
                for row in measured if row["cents"]]
    return "; ".join(f"{by} {np.mean(errors(by)):.1f} in the mean, {max(errors(by)):.1f} at most"
                     for by in ("measure_tuning", "librosa.estimate_tuning"))


def mixtures(args):  # set, {stem: (samples,)}
    pieces = PieceBank.load(args.pieces).split()["valid"]
    data = exact_mixtures(soundfonts()[HELD_OUT_SOUNDFONT], pieces, seed=912)
    for number in range(args.count):
        yield "held-out soundfont", {name: stem for name, stem in zip(data.stems, data.item(number)[1]) if stem.any()}
    for path, _, stems in recordings(args.recordings) if args.recordings else ():
        if path.name.startswith(RECORDINGS):
            yield path.name.split("_")[0], {name: np.asarray(stem[0])[:SECONDS * RATE] for name, stem in stems.items()}


def gained(separator, stems: dict, sample_rate: int, a4s):  # way, cents by which it is retuned, {stem: dB}
    "What each of the ways gains on the stems; what is the same is done once."
    mixture, done = torch.stack(list(stems.values())).sum(0), {}
    for way, a4 in zip(WAYS, a4s):
        off = cents_off(separator.config.a4, mixture[None], sample_rate, a4)
        if off not in done:
            found = separator.separate(mixture[None], sample_rate, refine=False, a4=a4)
            done[off] = {name: float(si_sdr_improvement(found[name][0], stem, mixture))
                         for name, stem in stems.items() if name in TRIO}
        yield way, off, done[off]


def notes(args) -> list[dict]:
    "Scores of what is transcribed."
    transcriber, rows = FrameTranscriber.from_pretrained(), []
    pieces, font = PieceBank.load(args.pieces).split()["valid"], soundfonts()[HELD_OUT_SOUNDFONT]
    items = list(soundfont_items("held-out soundfont", font, pieces, args.count))
    if args.recordings: items += recorded_items("recordings", Path(args.recordings), WITH_NOTES)
    for item in items:
        for cents in OF_NOTES:
            slower = 2 ** (-cents / 1200)
            true = [Note(slower * note.onset, slower * note.offset, note.pitch, note.velocity, note.program)
                    for note in item.notes]
            mixture = tuned(np.asarray(item.mixture).mean(0), cents)
            for way, a4 in zip(WAYS, (440.0, None)):
                scores = note_scores(true, transcriber(mixture, RATE, a4=a4, progress=False))
                rows.append(dict(set=item.set if item.set != "recordings" else item.name.split("_")[0], cents=cents,
                                 way=way) | {measure: float(scores[measure]) for measure in MEASURES})
    return rows


def of_notes(rows: list[dict]) -> list[dict]:
    def cell(label, way, cents):
        some = [row for row in rows if (row["set"], row["way"], row["cents"]) == (label, way, cents)]
        return " / ".join(f"{np.mean([row[measure] for row in some]):.3f}" for measure in MEASURES)
    return [{"set": label, "n": sum(row["set"] == label for row in rows) // len(OF_NOTES) // 2, "": way}
            | {f"{cents:+d} cents" if cents else "as recorded": cell(label, way, cents) for cents in OF_NOTES}
            for label in dict.fromkeys(row["set"] for row in rows) for way in WAYS[:2]]


def other_tunings(args) -> tuple[list[dict], list[dict]]:  # of stems, of transcriptions
    "Passages of `tunings.py`, in all of its tunings, on recorded notes that the models were not trained with."
    separator = Separator.from_pretrained(HELD_OUT_WEIGHTS / "trio-informed")
    transcriber, found = FrameTranscriber.from_pretrained(HELD_OUT_WEIGHTS / "trio-notes"), []
    players, rows = Players(args.notes, soundfonts()[HELD_OUT_SOUNDFONT]), []
    source = excerpts(PieceBank.load(args.pieces).split()["test"], 6.0, 21, set())
    for _ in range(args.passages):
        piece, notes = next(source)
        for tuning, (scale, tonic, a4) in TUNINGS.items():
            score = tune(notes, SCALES[scale], tonic=tonic, a4=a4)
            played = players(score, 6.0, REAL)                                              # (instruments, samples)
            found += [dict(tuning=tuning, piece=piece, way=way, f1=judged(score, transcriber(
                played.sum(0), OWN_RATE, a4=a4, progress=False))["f1"]) for way, a4 in zip(WAYS, (440.0, None))]
            stems = {name: torch.from_numpy(stem) for name, stem in zip(TRIO, played) if stem.any()}
            for way, off, gains in gained(separator, stems, OWN_RATE, (440.0, None)):
                rows += [dict(tuning=tuning, piece=piece, way=way, found=off, stem=name, gain=gain)
                         for name, gain in gains.items()]
        print(piece, flush=True)
    return rows, found


def of_tunings(rows: list[dict], found: list[dict]) -> list[dict]:
    table = []
    def f1(tuning):
        scores = ([row["f1"] for row in found if (row["tuning"], row["way"]) == (tuning, way)] for way in WAYS[:2])
        return " -> ".join(f"{np.mean(each):.3f}" for each in scores)
    for tuning in dict.fromkeys(row["tuning"] for row in rows):
        as_it_is, retuned = ([row for row in rows if (row["tuning"], row["way"]) == (tuning, way)] for way in WAYS[:2])
        change = np.array([b["gain"] - a["gain"] for a, b in zip(as_it_is, retuned)])
        table.append({"tuning": tuning, "stems": len(change)} | {
            way: f"{np.mean(gains):.1f} / {np.median(gains):.1f}" for way, gains in zip(
                WAYS, ([row["gain"] for row in rows] for rows in (as_it_is, retuned)))} | {
            "change": f"{change.mean():+.2f} ± {change.std(ddof=1) / np.sqrt(len(change)):.2f}",
            "notes, F1": f1(tuning), "passages retuned": len({row["piece"] for row in retuned if row["found"]})})
    return table


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("weights", nargs="*", help="of separators to set beside the one that ships: names and folders")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank")
    parser.add_argument("--recordings", help="folder with recordings")
    parser.add_argument("--notes", default="../shared/reference/notes", help="folder with recorded notes")
    parser.add_argument("--passages", type=int, default=8, help="passages in other tunings")
    parser.add_argument("--count", type=int, default=16, help="mixtures through the soundfont")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = {"trio-informed": "trio-informed"} | dict(zip(args.weights[::2], args.weights[1::2]))
    separators = {name: Separator.from_pretrained(folder) for name, folder in folders.items()}
    rows, measured = [], []
    for item, (label, stems) in enumerate(mixtures(args)):
        if len(stems) < 2: continue                                                 # nothing to separate
        for cents in CENTS:
            moved = {name: tuned(stem, cents) for name, stem in stems.items()}
            mixture = torch.stack(list(moved.values())).sum(0).numpy()
            measured.append({"item": item, "set": label, "cents": cents,
                             "measure_tuning": measure_tuning(mixture, RATE)[0],
                             "librosa.estimate_tuning": 100 * float(librosa.estimate_tuning(y=mixture, sr=RATE))})
            for weights, separator in separators.items():
                for way, off, gains in gained(separator, moved, RATE, (440.0, None, 440 * 2 ** (cents / 1200))):
                    rows += [dict(set=label, cents=cents, weights=weights, way=way, found=off, stem=name, gain=gain)
                             for name, gain in gains.items()]
        print(label, flush=True)
    table = []
    for label in dict.fromkeys(row["set"] for row in rows):
        for weights, way in product(separators, WAYS):
            gains = {cents: [row["gain"] for row in rows if (row["set"], row["weights"], row["way"], row["cents"]) == (
                label, weights, way, cents)] for cents in CENTS}
            table.append({"set": label, "weights": weights, "": way, "stems": len(gains[0])} | {
                f"{cents:+d} cents" if cents else "as recorded": f"{np.mean(each):.1f} / {np.median(each):.1f}"
                for cents, each in gains.items()})
    other_rows, other_notes = other_tunings(args)
    others = of_tunings(other_rows, other_notes)
    note_rows = notes(args)
    noted = of_notes(note_rows)
    found = {cents: sorted({round(row["found"]) for row in rows if (row["cents"], row["way"]) == (cents, "retuned")})
             for cents in CENTS}
    found = "; ".join(f"{cents:+d}: {each[0]:+d} to {each[-1]:+d}" for cents, each in found.items())
    command = "python benchmarks/concert_pitch.py --pieces PIECES --recordings RECORDINGS --notes NOTES" + "".join(
        f' "{name}" FOLDER' for name in list(separators)[1:])
    write_results(RESULTS / "concert_pitch", f"""# Tuned higher or lower

`{command}`

SI-SDR improvement in dB without refinement, mean / median over stems:

{format_table(table)}

Cents by which `separate` finds them off and retunes them (0: it does not): {found}.

Errors, in cents, with which two measurements follow these changes ({len(measured)} mixtures, as recorded and changed):
{following(measured)}. (A second number, how far the peaks agree, librosa's does not give.)

Notes: onset F1 / by instrument / with offsets, means over the items.

{format_table(noted)}

{args.passages} passages of 6 s in other tunings, on recorded notes that these models were not trained with: stems as
above, `change` with its standard error over stems, and F1 of the notes (nearest keys), not retuned and retuned.

{format_table(others)}
""", dict(command=command, table=table, rows=rows, measured=measured, others=others, other_rows=other_rows,
        other_notes=other_notes, notes=noted, note_rows=note_rows,
        machine=f"{processor()}, torch {torch.__version__}, one thread"))


if __name__ == "__main__": main()
