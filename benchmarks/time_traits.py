"""What rubato, free metre, tremolo, swells and rhythms finer than 10 ms do to a separator and two transcribers.

    OMP_NUM_THREADS=1 python benchmarks/time_traits.py --pieces pieces.npz

Passages as in `benchmarks/tunings.py`, with its players, in twelve equal tones. Each passage is played as it is,
which is the control, and with one trait:

- rubato: the tempo goes up and down by 40 %, once in four seconds;
- free metre: each step from one onset to the next is made longer or shorter, by a third on average;
- tremolo: what guitar and piano hold is struck eleven times a second instead;
- swells: notes grow and die away in turn by 12 dB a second, and the passage grows from soft to loud;
- interlocking: notes that began together begin 6 ms apart, one instrument after the other.

Onsets are compared with those that were played, less the median lateness of each instrument; beside them stands what
rounding to steps of 10 ms, to frames of 23 ms and to trio-mt3's steps of 20 ms would do to the same notes. *Order
kept*: of pairs of notes of two instruments 3 to 15 ms apart that are both found, how many are written in their order.
Writes benchmarks/results/time_traits.json and .md; goes on from --cache.
"""
from dataclasses import replace

import numpy as np
import torch

from instsep.core import TRIO
from instsep.metrics import format_table, si_sdr_improvement
from instsep.music.notes import Note, Transcription
from instsep.music.pieces import PieceBank
from instsep.sound.soundfont import default_soundfont
from common import PIECES, RESULTS, arguments, processor, shipped_weights_id, write_results
from tunings import FRAMES, MT3, NOTES, RATE, REAL, Cache, Players, excerpts, found_pairs, judged, load_models, \
    mean_and_error

CONTROL = "as it is"
FRAME, STEP, STRIKES = 512 / 22050, 0.010, 11                                       # s, s, a second
GRIDS = {"steps of 10 ms": STEP, "steps of 20 ms": 0.020, "frames of 23 ms": FRAME}


# ---- traits: notes in, notes and dB per second out

def warped(notes: list[Note], where) -> list[Note]:
    onsets = [max(0.0, float(where(note.onset))) for note in notes]
    return [replace(note, onset=onset, offset=max(float(where(note.offset)), onset + 0.03))
            for note, onset in zip(notes, onsets)]


def rubato(notes, random):
    at = np.linspace(-3, 20, 4000)
    tempo = 1 + 0.4 * np.cos(2 * np.pi * at / 4 + random.uniform(0, 6))
    time = np.concatenate([[0], np.cumsum(np.diff(at) / (0.5 * (tempo[1:] + tempo[:-1])))])
    time *= 6 / (np.interp(6, at, time) - np.interp(0, at, time))
    return warped(notes, lambda x: np.interp(x, at, time - np.interp(0, at, time)))


def free_metre(notes, random):
    onsets = np.unique([note.onset for note in notes])
    steps = np.diff(onsets) * np.exp(random.normal(0, 0.4, len(onsets) - 1))
    new = onsets[0] + np.concatenate([[0], np.cumsum(steps * (onsets[-1] - onsets[0]) / steps.sum())])
    return warped(notes, lambda x: np.interp(x, onsets, new) + max(0, x - onsets[-1]) + min(0, x - onsets[0]))


def tremolo(notes, random):
    out = []
    for note in notes:
        count = int((note.offset - note.onset) * STRIKES)
        if note.program == 71 or count < 3: out.append(note)
        else: out += [replace(note, onset=note.onset + k / STRIKES, offset=note.onset + (k + 0.9) / STRIKES)
                      for k in range(count)]
    return out


def swells(notes, random):
    end = max(note.onset for note in notes)
    return [replace(note, velocity=int(np.clip(40 + 75 * note.onset / end, 20, 120))) for note in notes]


def interlocking(notes, random):
    out, together = [], []
    for note in sorted(notes):
        if together and note.onset - together[0].onset > 0.03: together = []
        together.append(note)
        out.append(replace(note, onset=together[0].onset + 0.006 * (len(together) - 1),
                           offset=max(note.offset, together[0].onset + 0.05)))
    return out


TRAITS = {CONTROL: lambda notes, random: list(notes), "rubato": rubato, "free metre": free_metre, "tremolo": tremolo,
          "swells": swells, "interlocking, 6 ms": interlocking}


# ---- measures

def lateness(truth, pairs, written) -> list[float]:  # s, less the median of each instrument
    late = np.array([written[j].onset - truth[i].onset for i, j in pairs])
    who = np.array([truth[i].program for i, _ in pairs])
    for program in np.unique(who): late[who == program] -= np.median(late[who == program])
    return late.round(5).tolist()


def close_pairs(truth) -> list[tuple[int, int]]:
    "Notes of two instruments, 3 to 15 ms apart, the earlier one first."
    return [(i, j) for i, a in enumerate(truth) for j, b in enumerate(truth)
            if a.program != b.program and 0.003 <= b.onset - a.onset <= 0.015]


def order(truth, onset_of: dict[int, float]) -> tuple[int, int]:
    "Of close pairs of which both onsets are known: in how many is the order kept, and how many are there."
    known = [(onset_of[i], onset_of[j]) for i, j in close_pairs(truth) if i in onset_of and j in onset_of]
    return int(sum(a < b - 1e-6 for a, b in known)), len(known)


def of_written(truth: Transcription, written: Transcription) -> dict:
    sounding = np.array([100.0 * note.pitch for note in truth])
    pairs = found_pairs(truth, sounding, written)
    loud = np.array([[truth[i].velocity, written[j].velocity] for i, j in pairs
                     if truth[i].program == written[j].program])
    return judged(truth, Transcription(list(written), written.confidence)) | dict(
        late=lateness(truth, pairs, written), order=order(truth, {i: written[j].onset for i, j in pairs}),
        velocities=loud.tolist())


def look(notes, trait: str, seconds: float, players: Players, models: dict, with_tokens: bool) -> dict:
    random = np.random.default_rng(int(1000 * sum(note.onset for note in notes)))
    played = [note for note in TRAITS[trait](notes, random) if note.onset < seconds - 0.05]
    truth = Transcription(played, cents=np.zeros(len(played)))
    fade = np.where(np.arange(len(truth)) % 2, 12.0, -12.0) if trait == "swells" else None
    stems = players(truth, seconds, REAL, fade)
    mixture = stems.sum(0)
    row = {FRAMES: of_written(truth, models["frames"](mixture, RATE, progress=False))}
    if with_tokens: row[MT3] = of_written(truth, models["mt3"](mixture, RATE, progress=False))
    estimate = models["separator"].separate(mixture[None], RATE)
    with np.errstate(invalid="ignore"):
        gained = si_sdr_improvement(np.stack([estimate[name][0].numpy() for name in TRIO]), stems,
                                    np.broadcast_to(mixture, stems.shape))
    onsets = np.array([note.onset for note in truth])
    rounded = {name: [float(np.abs(step * np.round(onsets / step) - onsets).mean()),
                      *order(truth, dict(enumerate(step * np.round(onsets / step))))] for name, step in GRIDS.items()}
    swell = float(np.mean([12 * (note.offset - note.onset) for note in truth])) if fade is not None else 0.0
    return dict(answers=row, gained=[round(float(x), 3) if np.isfinite(x) else None for x in gained],
                rounded=rounded, swell=swell, notes=len(truth))


def of_system(name: str, rows: list[dict], control: dict) -> dict:
    rows = [row for row in rows if name in row["answers"]]
    answers = [row["answers"][name] for row in rows]
    change, error = mean_and_error([a["f1"] - control[row["piece"]]["answers"][name]["f1"]
                                    for a, row in zip(answers, rows)])
    played, written = sum(a["played"] for a in answers), sum(a["written"] for a in answers)
    found = sum(e is not None for a in answers for _, e in a["notes"])
    loud = np.array([pair for a in answers for pair in a["velocities"]])
    late = np.abs([x for a in answers for x in a["late"]])
    kept, pairs = np.sum([a["order"] for a in answers], 0)
    return dict(passages=len(rows), f1=float(np.mean([a["f1"] for a in answers])), f1_change=change,
                f1_change_error=error,
                missed=(played - found) / played, invented=(written - found) / played, off=float(late.mean()),
                off_median=float(np.median(late)), order_kept=int(kept), pairs=int(pairs),
                velocity_correlation=float(np.corrcoef(loud.T)[0, 1]) if len(loud) > 2 else None)


def report(result: dict) -> str:
    change = lambda name, value, error, digits: "" if name == CONTROL else f"{value:+.{digits}f} ± {error:.{digits}f}"
    first, second = [], []
    for name, row in result["traits"].items():
        line = {"trait": name, "separator, change (dB)": change(name, row["change"], row["change_error"], 1)}
        other = {"trait": name, "notes": row["notes"]}
        for system, one in row["systems"].items():
            line |= {f"{system}: F1": f"{one['f1']:.2f}",
                     f"{system}: change": change(name, one["f1_change"], one["f1_change_error"], 2),
                     f"{system}: missed (%)": f"{100 * one['missed']:.0f}",
                     f"{system}: invented (%)": f"{100 * one['invented']:.0f}"}
            other |= {f"{system}: off by (ms)": f"{1000 * one['off']:.1f}",
                      f"{system}: order kept": f"{one['order_kept']} of {one['pairs']}"}
        for grid, (off, kept, pairs) in row["rounded"].items():
            other |= {f"{grid}: off by": f"{1000 * off:.1f}", f"{grid}: order kept": f"{kept} of {pairs}"}
        first.append(line)
        second.append(other)
    s = result["traits"]["swells"]
    return f"""# Time and loudness

`{result['command']}`

{result['pieces']} passages of {result['seconds']:g} s, played by recorded notes of clarinet, guitar and piano. \
Changes are against the same passage as it is, with their standard error. trio-mt3 has half of the passages.

{format_table(first)}

Onsets: how far they are off on average, less each instrument's median lateness, and how often two notes 3 to 15 ms \
apart are written in their order; and what grids would do to the same notes.

{format_table(second)}

Swells: a note changes by {s['swell']:.1f} dB while it is held, on average, and a MIDI note has one velocity; of that \
the notes explain nothing. Of the growth from note to note the velocities keep a correlation of \
{s['systems'][FRAMES]['velocity_correlation']:.2f}.

{result['machine']}; weights {result['weights']}
"""


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank (instsep pieces)")
    parser.add_argument("--notes", default=NOTES, help="folder of recorded notes")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--cache", default="time_traits_cache.jsonl")
    parser.add_argument("--name", default="time_traits")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bank, cache, players = PieceBank.load(args.pieces), Cache(args.cache), Players(args.notes, default_soundfont())
    models, rows, source = {}, [], excerpts(bank.split()["test"], args.seconds, 21, set())
    for k in range(args.count):
        piece, notes = next(source)
        for trait in TRAITS:
            def make(notes=notes, trait=trait, k=k):
                if not models: models.update(load_models())
                return look(notes, trait, args.seconds, players, models, k < args.count // 2)
            rows.append(cache((notes, trait, k < args.count // 2, args.seconds), make) | dict(piece=piece, trait=trait))
            print(piece, "|", trait, flush=True)
    control, table = {row["piece"]: row for row in rows if row["trait"] == CONTROL}, {}
    for trait in TRAITS:
        own = [row for row in rows if row["trait"] == trait]
        change, error = mean_and_error([new - old for row in own
                                        for new, old in zip(row["gained"], control[row["piece"]]["gained"])
                                        if new is not None and old is not None])
        rounded = {grid: [float(np.mean([row["rounded"][grid][0] for row in own])),
                          *np.sum([row["rounded"][grid][1:] for row in own], 0).tolist()] for grid in GRIDS}
        table[trait] = dict(change=change, change_error=error, rounded=rounded, notes=sum(row["notes"] for row in own),
                            swell=float(np.mean([row["swell"] for row in own])),
                            systems={name: of_system(name, own, control) for name in (FRAMES, MT3)})
    result = dict(command=f"python benchmarks/time_traits.py --pieces pieces.npz --count {args.count} "
                          f"--seconds {args.seconds:g}", pieces=args.count, seconds=args.seconds, traits=table,
                  weights=shipped_weights_id(), machine=f"{processor()}, torch {torch.__version__}, one thread")
    write_results(RESULTS / args.name, report(result), result)


if __name__ == "__main__": main()
