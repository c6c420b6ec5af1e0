"""What other tunings than twelve equal tones do to a separator and a transcriber, and what measured cents recover.

    OMP_NUM_THREADS=1 python benchmarks/tunings.py --pieces pieces.npz

Excerpts of pieces from the test split, on a soundfont that no shipped model was trained with. Each excerpt is played
in every tuning by the same players; the excerpt in twelve equal tones at A = 440 Hz is its own control. `--in-tune`
more excerpts, of other pieces and at A = 437 to 443 Hz, ask only whether the tool says of music in tune that it
fits. Everything is measured on what the commands give back: the separator's stems, the transcriber's notes,
`instsep.tunings.measure_cents`. Writes benchmarks/results/tunings.json and .md, and keeps every finished excerpt in
--cache, so that a stopped run goes on.
"""
import argparse
import hashlib
import json
import math
import platform
from pathlib import Path

import numpy as np
import torch

from instsep.core import TRIO, atomic_path
from instsep.frames import FrameTranscriber
from instsep.metrics import format_table, si_sdr_improvement
from instsep.mixtures import INSTRUMENTS, Mixtures
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.soundfont import default_soundfont, synthesize
from instsep.tunings import SCALES, estimate_tuning, measure_cents, tune, with_cents

RATE = 22050
CONTROL = "twelve equal"
TUNINGS = {  # name -> scale, tonic, A4 in Hz
    CONTROL: (CONTROL, 60, 440.0), "twelve equal, A = 432 Hz": (CONTROL, 60, 432.0),
    "nineteen equal": ("nineteen equal", 60, 440.0),
    "Rast": ("Rast", 60, 440.0), "Bayati": ("Bayati", 62, 440.0),
    "slendro, Kanjutmesem": ("slendro, Kanjutmesem", 60, 440.0),
    "slendro, mean of 30": ("slendro, mean of 30", 60, 440.0), "pelog, Kanjutmesem": ("pelog, Kanjutmesem", 60, 440.0)}
# s; cents within which a note is found; within which a pitch is right; confidence
ONSET, NEAR, KEPT, SURE = 0.05, 70, 15, 0.5


def excerpts(pieces, seconds: float, seed: int, taken: set[str]):
    "Passages of pieces, one of each work, given to the trio: the notes of each instrument."
    mixtures = Mixtures(list(pieces), None, {name: ["0"] for name in TRIO}, instruments=TRIO, sample_rate=RATE,
                        seconds=seconds,
                        kinds=dict(parts=1.0), absent=0.0, augmentation=(), seed=seed)
    work_of = {piece.id: (piece.composer, piece.work) for piece in pieces}
    for index in range(10_000):
        score = mixtures.score(index)
        piece, notes = next(iter(score.pieces.values())), score.to_notes()
        if work_of[piece] in taken or len(notes) < 15 or len({note.program for note in notes}) < 2: continue
        taken.add(work_of[piece])
        yield piece, notes


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


def played(notes, soundfont, seconds: float, tuning) -> tuple:
    "The tuned notes, and the sound of each instrument (instruments, samples)."
    scale, tonic, a4 = tuning
    tuned = tune(notes, SCALES[scale], tonic=tonic, a4=a4)
    samples, stems = round(seconds * RATE), np.zeros((len(TRIO), round(seconds * RATE)), np.float32)
    for k, name in enumerate(TRIO):
        own = [index for index, note in enumerate(tuned) if note.program in INSTRUMENTS[name].programs]
        if not own: continue
        wave = synthesize([tuned[index] for index in own], soundfont, cents=tuned.cents[own], sample_rate=RATE,
                          tail=1.0).mean(0)[:samples]
        stems[k, :len(wave)] = wave
    return tuned, stems / max(1.0, np.abs(stems.sum(0)).max() / 0.95)


def look(tuned, stems, transcriber, separator) -> dict:
    "All that is measured on one excerpt in one tuning."
    mixture = stems.sum(0)
    written = transcriber(mixture, RATE, progress=False)
    cents, sure = measure_cents(mixture, written, RATE)
    tuning = estimate_tuning(written, cents, sure)
    row = dict(fits=bool(tuning.fits), a4=tuning.a4, furthest=tuning.furthest, steps_seen=len(tuning.steps),
               notes=len(tuned), written=len(written))
    if separator is None: return row
    sounding = np.array([100 * note.pitch for note in tuned]) + tuned.cents
    bent = with_cents(written, cents, sure)
    pairs, bent_pairs = found_pairs(tuned, sounding, written), found_pairs(tuned, sounding, bent)
    before = np.array([100 * written[j].pitch - sounding[i] for i, j in pairs])
    after = np.array([100 * bent[j].pitch + bent.cents[j] - sounding[i] for i, j in bent_pairs])
    confidence = np.array([written.confidence[j] for _, j in pairs])
    # pitch classes as they sound
    step = np.round(sounding - 1200 * np.floor(sounding / 1200)).astype(int) % 1200
    kept = {which: {} for which in ("before", "after")}
    for which, error, found in (("before", before, pairs), ("after", after, bent_pairs)):
        for place in np.unique(step):
            errors = [error[n] for n, (i, _) in enumerate(found) if step[i] == place]
            if errors: kept[which][int(place)] = float(np.median(errors))
    estimate = separator.separate(mixture[None], RATE)
    with np.errstate(invalid="ignore"):
        gained = si_sdr_improvement(np.stack([estimate[name][0].numpy() for name in TRIO]), stems,
                                    np.broadcast_to(mixture, stems.shape))
    return row | dict(
        gained=[round(float(x), 3) if np.isfinite(x) else None for x in gained], found=len(pairs),
        f1=2 * len(pairs) / max(1, len(tuned) + len(written)),
        f1_bent=2 * len(bent_pairs) / max(1, len(tuned) + len(bent)),
        doubles=len(written) - len(bent),
        silent_wrong=float(((np.abs(before) > KEPT) & (confidence >= SURE)).sum() / max(1, len(tuned))),
        loud_wrong=float((len(tuned) - len(pairs) + len(written) - len(pairs)) / max(1, len(tuned))),
        confidence=float(confidence.mean()) if len(pairs) else None,
        before=np.abs(before).round(2).tolist(), after=np.abs(after).round(2).tolist(),
        steps=len(kept["before"]), **{f"steps_{which}": sum(abs(x) <= KEPT for x in kept[which].values())
                                      for which in kept})


def summary(rows: list[dict], control: dict[str, dict]) -> dict:
    "Over the excerpts of one tuning; changes are against the same excerpt in the control."
    before, after = (np.concatenate([row[which] for row in rows]) for which in ("before", "after"))
    change = lambda key: np.array([row[key] - control[row["piece"]][key] for row in rows])
    gained = [new - old for row in rows for new, old in zip(row["gained"], control[row["piece"]]["gained"])
              if new is not None and old is not None]
    error = lambda values: float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return dict(n=len(rows), notes=sum(row["notes"] for row in rows),
                gained=float(np.mean([x for row in rows for x in row["gained"] if x is not None])),
                gained_change=float(np.mean(gained)), gained_change_error=error(gained), stems=len(gained),
                f1=float(np.mean([row["f1"] for row in rows])), f1_change=float(change("f1").mean()),
                f1_change_error=error(change("f1")),
                f1_bent=float(np.mean([row["f1_bent"] for row in rows])),
                silent_wrong=float(np.mean([row["silent_wrong"] for row in rows])),
                loud_wrong=float(np.mean([row["loud_wrong"] for row in rows])),
                confidence=float(np.mean([row["confidence"] for row in rows if row["confidence"] is not None])),
                found=len(before), before_median=float(np.median(before)), before_mean=float(before.mean()),
                after_median=float(np.median(after)), after_mean=float(after.mean()),
                after_within_15=float((after <= KEPT).mean()),
                steps=sum(row["steps"] for row in rows), steps_before=sum(row["steps_before"] for row in rows),
                steps_after=sum(row["steps_after"] for row in rows), warned=sum(not row["fits"] for row in rows))


def write_report(path: Path, result: dict) -> None:
    "The JSON's tables in words."
    rows, steps, tuned = [], [], result["tunings"]
    for name, s in tuned.items():
        rows.append({"tuning": name, "pieces": s["n"], "separator, SI-SDR gained (dB)": f"{s['gained']:.1f}",
                     "change": "" if name == CONTROL else f"{s['gained_change']:+.1f} ± {s['gained_change_error']:.1f}",
                     "transcriber, onset F1": f"{s['f1']:.2f}", "change ": "" if name == CONTROL
                     else f"{s['f1_change']:+.2f} ± {s['f1_change_error']:.2f}",
                     "with --pitch-bend": f"{s['f1_bent']:.2f}", "silent-wrong (%)": f"{100 * s['silent_wrong']:.0f}",
                     "loud-wrong (%)": f"{100 * s['loud_wrong']:.0f}",
                     "confidence": f"{s['confidence']:.2f}"})
        steps.append({"tuning": name, "notes found": s["found"], "as keys, median (cents)": f"{s['before_median']:.1f}",
                      "mean": f"{s['before_mean']:.1f}",
                      "measured, median": f"{s['after_median']:.1f}", "mean ": f"{s['after_mean']:.1f}",
                      "within 15 (%)": f"{100 * s['after_within_15']:.0f}",
                      "in place as keys": f"{s['steps_before']} of {s['steps']}",
                      "measured ": f"{s['steps_after']} of {s['steps']}",
                      "warned": f"{s['warned']} of {s['n']}"})
    w = result["warning"]
    text = f"""# Other tunings than twelve equal tones

`{result['command']}`

{result['pieces']} excerpts of {result['seconds']:g} s, each of another work of the test split, given to clarinet, \
guitar and piano of {result['soundfont']},
and played in each tuning by the same players. Changes are against the same excerpt in twelve equal tones, with their \
standard error.
A note is found if one is written within 50 ms of its onset and 70 cents of its pitch. *Silent-wrong*: written more \
than 15 cents from where it sounds with
a confidence of 0.5 or more, as a share of the notes played. *Loud-wrong*: notes missed and notes invented, as a share \
of those played.

{format_table(rows)}

Pitches: how far what is written lies from what sounds, as keys and with the measured cents; and how many of the pitch \
classes that are
found are written within 15 cents of their place. (In slendro and pelog, whose octaves are wider, a step counts anew \
in each.)

{format_table(steps)}

The one line that says that a recording does not fit twelve equal tones: right for {w['right']} of {w['recordings']} \
recordings ({100 * w['right'] / w['recordings']:.0f} %).
Of {w['in_tune']} in twelve equal tones at A = 437 to 443 Hz, {w['in_tune_warned']} were warned of; of \
{w['out_of_tune']} others, {w['out_of_tune_warned']}.

{result['machine']}
"""
    with atomic_path(path.with_suffix(".json")) as temporary: temporary.write_text(json.dumps(result, indent=1) + "\n")
    with atomic_path(path) as temporary: temporary.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", help="a piece bank (instsep pieces); else it is made from music21's corpus")
    parser.add_argument("--soundfont", default=str(default_soundfont()))
    parser.add_argument("--count", type=int, default=8, help="excerpts in every tuning")
    parser.add_argument("--in-tune", type=int, default=48, help="more excerpts that are in tune")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--split", default="test")
    parser.add_argument("--cache", default="tunings_cache.jsonl")
    parser.add_argument("--name", default="tunings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bank = PieceBank.load(args.pieces) if args.pieces else PieceBank.from_music21()
    cache = Path(args.cache)
    done = {row["key"]: row for row in map(json.loads, cache.read_text().splitlines())} if cache.is_file() else {}
    models, taken, random = {}, set(), np.random.default_rng(1)
    def measured(piece, notes, name, tuning, separate) -> dict:
        digest = hashlib.blake2b(repr((notes, tuning, separate, args.soundfont.split("/")[-1], args.seconds)).encode(),
                                 digest_size=8).hexdigest()
        if digest not in done:
            if not models:
                models.update(transcriber=FrameTranscriber.from_pretrained(), separator=Separator.from_pretrained())
            row = look(*played(notes, args.soundfont, args.seconds, tuning), models["transcriber"],
                       models["separator"] if separate else None)
            done[digest] = row | dict(key=digest, piece=piece, tuning=name)
            with cache.open("a") as file: file.write(json.dumps(done[digest]) + "\n")
            print(piece, name, f"fits {row['fits']}, furthest {row['furthest']:.0f}",
                  *([f"F1 {row['f1']:.2f}"] if separate else []), flush=True)
        return done[digest]
    source, rows, rows_in_tune, chosen = excerpts(bank.split()[args.split], args.seconds, 21, taken), [], [], []
    # whole pieces first: a run that is stopped has some
    for _ in range(args.count):
        piece, notes = next(source)
        chosen.append(piece)
        rows += [measured(piece, notes, name, tuning, True) for name, tuning in TUNINGS.items()]
        for _ in range(args.in_tune // args.count):
            piece, notes = next(source)
            rows_in_tune.append(measured(piece, notes, "in tune",
                                         (CONTROL, 60, round(float(random.uniform(437, 443)), 2)), False))
    control = {row["piece"]: row for row in rows if row["tuning"] == CONTROL}
    tables = {name: summary([row for row in rows if row["tuning"] == name], control) for name in TUNINGS}
    fitting = rows_in_tune + [row for row in rows if row["tuning"] == CONTROL]
    others = [row for row in rows if row["tuning"] != CONTROL]
    warned = lambda some: sum(not row["fits"] for row in some)
    result = dict(
        command=f"python benchmarks/tunings.py --pieces pieces.npz --count {args.count} --in-tune {args.in_tune} "
                f"--seconds {args.seconds:g}",
        soundfont=Path(args.soundfont).stem, seconds=args.seconds, pieces=len(chosen), works=chosen, tunings=tables,
        warning=dict(recordings=len(fitting) + len(others), right=len(fitting) - warned(fitting) + warned(others),
                     in_tune=len(fitting),
                     in_tune_warned=warned(fitting), out_of_tune=len(others), out_of_tune_warned=warned(others)),
        machine=f"{platform.machine()}, torch {torch.__version__}, one thread")
    write_report(Path(__file__).parent / f"results/{args.name}.md", result)


if __name__ == "__main__": main()
