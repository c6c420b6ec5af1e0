"""How much of a pianist's pedalling can be told from how long the notes sound.

    OMP_NUM_THREADS=1 python benchmarks/pedal.py --performances ../shared/reference/performances

For each performance (MIDI files with notes and control change 64, of a piano with sensors) the notes are read as long
as they sound under the pedal, `find_pedal` tells when it was down, and this is compared with control change 64, in
steps of 10 ms, all performances together. Then again with ends moved by a normal error (not those
that the next stroke of a key makes). And for the first 20 s of six of them, played by the default soundfont,
with the notes that the default transcriber finds. Writes benchmarks/results/pedal.json and .md.
"""
from pathlib import Path

import numpy as np

from instsep.metrics import format_table
from instsep.music.midi import _clock, _down, parse_midi
from instsep.music.notes import Note, read_midi
from instsep.music.pedal import find_pedal
from common import RESULTS, arguments, write_results

STEP = 0.01  # s
PERFORMANCES = "../shared/reference/performances"
EXCERPTS = ("Chopin_op10_no3_p01", "Chopin_op38_p02", "Mozart_K331_1st-mov_p03", "Schubert_D783_no15_p04",
         "Chopin_op10_no3_p09", "Schubert_D783_no15_p12")


def pedal_of(path: Path) -> np.ndarray:  # (times, 2): down, up again, in s
    "When control change 64 says that the pedal is down."
    midi = parse_midi(path.read_bytes())
    clock = _clock(midi.division, [tempo for track in midi.tracks for tempo in track.tempos])
    moves = sorted((tick, down) for track in midi.tracks for tick, _, down in track.pedals)
    spans = _down(np.array(moves, np.int64).reshape(-1, 2)) if moves else np.zeros((0, 2), np.int64)
    return clock(np.minimum(spans, max(track.last for track in midi.tracks)))


def steps(spans, count: int) -> np.ndarray:  # bool (count,)
    "Times as steps."
    down = np.zeros(count, bool)
    for start, stop in spans: down[max(round(start / STEP), 0):max(round(stop / STEP), 0)] = True
    return down


def overlap(items) -> dict:  # of (found, true, how many steps)
    "Precision, recall, F1 of the time in which the pedal is down; share of time in which it is found to be, and is."
    both = found = true = total = 0
    for ours, theirs, count in items:
        ours, theirs = steps(ours, count), steps(theirs, count)
        both, found = both + (ours & theirs).sum(), found + ours.sum()
        true, total = true + theirs.sum(), total + len(ours)
    return dict(precision=both / max(found, 1), recall=both / max(true, 1), f1=2 * both / max(found + true, 1),
                found=found / total, down=true / total)


def moved_ends(notes: list[Note], deviation: float, random: np.random.Generator) -> list[Note]:
    "Ends off by a normal error, but those that the next stroke of the same key makes."
    strokes = {(note.pitch, note.onset) for note in notes}
    errors = random.normal(0, deviation, len(notes)).tolist()
    return [note if (note.pitch, note.offset) in strokes else
            Note(note.onset, max(note.offset + error, note.onset + 0.03), note.pitch, note.velocity)
            for note, error in zip(notes, errors)]


def compare(label: str, performances: list, find) -> dict:
    "What `find` finds of the pedal of performances."
    row = overlap((find(notes), pedal, int((max(note.offset for note in notes) + 1) / STEP) + 2)
                  for notes, pedal in performances)
    return dict(ends=label, **{name: row[name] for name in ("precision", "recall", "f1", "down")})


def heard(folder: Path, seconds: float = 20.0) -> list[dict]:
    "The same of notes that were transcribed, and of the true notes of these excerpts."
    from instsep.frames import FrameTranscriber
    from instsep.sound.soundfont import synthesize
    transcriber, excerpts = FrameTranscriber.from_pretrained(), []
    for path in [folder / f"{name}.mid" for name in EXCERPTS if (folder / f"{name}.mid").is_file()]:
        notes = [note for note in read_midi(path) if note.offset < seconds]
        found = transcriber(synthesize(notes), 44100, instruments=["piano"], progress=False)
        pedal = [(down, min(up, seconds)) for down, up in pedal_of(path) if down < seconds]
        excerpts.append((notes, list(found), pedal))
    return [compare(label, [(excerpt[which], excerpt[2]) for excerpt in excerpts], find_pedal)
            for which, label in ((1, "transcribed, 20 s"), (0, "exact, these 20 s"))]


def main():
    parser = arguments(__doc__)
    parser.add_argument("--performances", default=PERFORMANCES)
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    paths = sorted(Path(args.performances).glob("*.mid"))
    if not paths: raise SystemExit(f"{args.performances}: no performances there")
    performances = [(read_midi(path), pedal_of(path)) for path in paths]
    random, rows = np.random.default_rng(0), []
    for label, deviation in (("exact", 0.0), ("10 ms off", 0.01), ("30 ms off", 0.03)):
        rows.append(compare(label, performances, lambda notes: find_pedal(moved_ends(notes, deviation, random))))
    rows.append(compare("always down", performances, lambda notes: [(0.0, max(note.offset for note in notes))]))
    for piece in dict.fromkeys(path.stem.rsplit("_p", 1)[0] for path in paths):
        mine = [one for path, one in zip(paths, performances) if path.stem.startswith(piece)]
        rows.append(compare(piece, mine, find_pedal))
    rows += heard(Path(args.performances))
    rows = [{key: value if isinstance(value, str) else round(float(value), 4) for key, value in row.items()}
            for row in rows]
    text = (f"# Pedal\n\n`OMP_NUM_THREADS=1 python benchmarks/pedal.py`\n\n{len(paths)} performances; the time "
            "in which the pedal is down, as `find_pedal` tells it from how long the notes sound, against the sensor's; "
            "with exact ends of notes, and with ends that are off by a normal error of this deviation; a pedal that is "
            "always down; each piece, with exact ends; and as the default transcriber finds 20 s of six, played "
            "by the default soundfont, given that a piano plays. `down`: the share of time in which it is down.\n\n"
            + format_table(rows, digits=2) + "\n")
    write_results(Path(args.out) / "pedal", text, dict(rows=rows))


if __name__ == "__main__": main()
