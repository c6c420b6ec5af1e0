"""How well the beats of pieces are found from their notes, beside librosa's beat tracker on the same onsets.

    OMP_NUM_THREADS=1 python benchmarks/beats.py --pieces data/pieces.npz

Minutes of test pieces whose notes lie on a grid of sixteenths are played as nobody writes them: at 70 to 140 % of
their tempo, in waves of 12 % around it, 30 % slower at the end, each note 12 ms early or late, with up to a second of
silence before. The beats found are compared with the quarters of the score: F1 within 70 ms (mir_eval), as they are,
and as the best of the same, half and double tempo, on the beat or between two. librosa's `beat_track` gets the same
curve of onsets, and its own tempo. Of performances by pianists (--performances), whose beats nobody has marked, the
beats in a bar are counted that are found in each. Results go to benchmarks/results/beats.json and .md.
"""
from collections import Counter
from pathlib import Path

import numpy as np
from mir_eval.beat import f_measure

from instsep.metrics import format_table
from instsep.music.beats import RATE, find_bars, find_beats, note_weights, onset_curve
from instsep.music.notes import Note, read_midi
from instsep.music.pieces import PieceBank
from common import PIECES, RESULTS, arguments, write_results

QUARTER, MINUTE = 0.6, 60.0  # s, of the bank's 100 quarters a minute
PERFORMANCES = "../shared/reference/performances"
METERS = dict(Chopin_op10_no3="2/4", Chopin_op38="6/8", Mozart_K331="6/8", Schubert_D783="3/4")


def played(notes: np.ndarray, random: np.random.Generator) -> tuple[list[Note], np.ndarray]:  # notes, beats in s
    "A minute of a score (onset and offset in s, pitch, velocity) as it is played, and where its quarters are."
    end, speed = notes[:, 0].max(), random.uniform(0.7, 1.4)
    time = np.arange(0, end + 3, 0.05)
    tempo = speed * (1 + 0.12 * np.sin(2 * np.pi * (time / random.uniform(8, 20) + random.uniform())))
    tempo *= np.where(time > end - 6, 1 - 0.3 * (time - end + 6) / 6, 1)
    passed = random.uniform(0, 1) + np.concatenate([[0], np.cumsum(0.05 / np.maximum(tempo, 0.4))])[:-1]
    def when(seconds): return np.interp(seconds, time, passed)
    onset = np.maximum(when(notes[:, 0]) + random.normal(0, 0.012, len(notes)), 0)
    offset = np.maximum(when(notes[:, 1]), onset + 0.05)
    rows = zip(onset.tolist(), offset.tolist(), notes[:, 2].tolist(), notes[:, 3].tolist())
    return sorted(Note(on, off, int(pitch), int(velocity)) for on, off, pitch, velocity in rows), when(
        np.arange(0, end + QUARTER / 2, QUARTER))


def performances(pieces, count: int, seed: int = 1):
    "Name, notes, beats of pieces whose notes lie on a grid."
    random = np.random.default_rng(seed)
    pieces = [piece for piece in pieces if piece.seconds > 25]
    random.shuffle(pieces)
    for piece in pieces:
        notes = np.concatenate([part.notes for part in piece.parts])
        start = random.uniform(0, max(0, notes[:, 0].max() - MINUTE)) // QUARTER * QUARTER
        notes = notes[(notes[:, 0] >= start - 1e-6) & (notes[:, 0] < start + MINUTE)]
        notes = notes - [start, start, 0, 0]
        sixteenths = notes[:, 0].clip(0) / (QUARTER / 4)
        if len(notes) < 40 or (np.abs(sixteenths - np.rint(sixteenths)) < 0.05).mean() < 0.9: continue
        if not count: return
        count -= 1
        notes[:, :2] = notes[:, :2].clip(0)
        yield piece.id, *played(notes, random)


def scores(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    "F1 at the tempo of the score, and at any level."
    eighths = np.interp(np.arange(0, len(truth) - 0.5, 0.5), np.arange(len(truth)), truth)
    levels = truth, eighths, eighths[1::2], truth[::2], truth[1::2]
    return f_measure(truth, found), max(f_measure(level, found) for level in levels)


def by_librosa(onset: np.ndarray, weight: np.ndarray) -> np.ndarray:
    import librosa
    _, frames = librosa.beat.beat_track(onset_envelope=onset_curve(onset, weight), sr=RATE, hop_length=1, trim=False)
    beats = frames / RATE
    return beats[(beats > onset.min() - 0.07) & (beats < onset.max() + 0.07)]


def bars_found(folder: Path) -> list[dict]:
    "How many performances of each piece got bars of three beats, and of four."
    rows = []
    for piece, meter in METERS.items():
        found = Counter()
        for path in sorted(folder.glob(f"{piece}*.mid")):
            onset, weight = note_weights(read_midi(path))
            found[find_bars(find_beats(onset, weight), onset, weight)[0]] += 1
        rows.append({"piece": piece, "meter": meter, "performances": sum(found.values()), "three": found[3],
                     "four": found[4]})
    return [row for row in rows if row["performances"]]


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank, made by instsep pieces")
    parser.add_argument("--performances", default=PERFORMANCES)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    data, rows = list(performances(PieceBank.load(args.pieces).split()["test"].pieces, args.count)), []
    for name, track in (("instsep, find_beats", find_beats), ("librosa, beat_track", by_librosa)):
        each = np.array([scores(beats, track(*note_weights(notes))) for _, notes, beats in data])
        rows.append({"beats by": name, "pieces": len(each), "F1": float(each[:, 0].mean()),
                     "F1 at any level": float(each[:, 1].mean()), "pieces above 0.9": int((each[:, 0] > 0.9).sum()),
                     "above 0.9 at any level": int((each[:, 1] > 0.9).sum())})
    bars = bars_found(Path(args.performances))
    bach = sum(name.startswith("bach") for name, _, _ in data)
    text = (f"# Beats\n\n`OMP_NUM_THREADS=1 python benchmarks/beats.py --count {args.count}`\n\nUp to a minute of each "
            f"of {len(data)} test pieces ({bach} by Bach), played with waves of tempo, a ritardando and uneven onsets; "
            "F1 of the beats within 70 ms, against the quarters of the score, and against the same, half or double "
            "tempo, on or between its beats:\n\n" + format_table(rows, digits=2)
            + "\n\nBars of three or four beats, as found in performances by pianists:\n\n" + format_table(bars)
            + "\n")
    write_results(Path(args.out) / "beats", text, dict(rows=rows, bars=bars))


if __name__ == "__main__": main()
