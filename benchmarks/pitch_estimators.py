"""Where does a note sound? Estimators of pitch compared, on notes whose pitch is known to the hundredth of a cent.

    OMP_NUM_THREADS=1 python benchmarks/pitch_estimators.py

Recorded notes (`--notes`, as in `tunings.py`) of a clarinet and a guitar that no shipped model was trained with are
read along curves, as in `glides.py`: steady notes on the keys of twelve equal tones, steady notes 15 to 50 cents
beside them, vibrato, and glides (*meend*, *kampita*, glissando, bend). Each phrase is heard alone, over a piano that
is as loud, and as the stem that the default separator takes out of that mixture. Every 10 ms within a note, less its
first and last 30 ms, the estimate is compared with where the pitch is; no estimate counts as infinitely far off.

In the package: `measure_cents`, one number a note; `follow_pitch`, of every note; and what `--pitch-bend` writes: the
contour where a note glides, else the number. They are given the notes' keys and times, in the mixture the piano's
too. Elsewhere: librosa's pyin, swift-f0, pesto, FCPE and crepe (tiny), which are given the sound; whichever is not
installed is left out with a line. (penn's weights are not in its package, so it is not among them.) Writes
benchmarks/results/pitch_estimators.json and .md; what was measured is kept in --cache.
"""
from pathlib import Path

import numpy as np
import torch

from instsep.metrics import format_table
from instsep.music.notes import Note
from instsep.separator import Separator
from instsep.sound.notebank import NoteBank, record_folder, render
from instsep.tunings import follow_pitch, measure_cents
from common import HELD_OUT_WEIGHTS, RESULTS, arguments, processor, shipped_weights_id, write_results
from glides import FRAME, NEAR, PLAYERS, TRIO_PLAYERS, curve, estimators, glided, of_contours, of_track
from tunings import NOTES, RATE, Cache, timed

PIANO = "freepats_kw/piano"
GROUPS = {"in tune": ("in tune",) * 2, "beside the keys": ("beside the keys",) * 2, "vibrato": ("vibrato",),
          "glides": ("meend", "kampita", "glissando", "bend")}
GROUP_OF = {kind: group for group, kinds in GROUPS.items() for kind in kinds}
SETTINGS = ("alone", "over a piano", "its stem")
EDGE = 0.03                                          # s at both ends of a note that are not counted


def phrase(bank: NoteBank, name: str, piano: NoteBank, random: np.random.Generator) -> dict:
    "Nine notes, with the sound alone and over a piano, and the truth."
    lowest, highest = bank.table["pitch"].min() + 3, bank.table["pitch"].max() - 8
    tonic, at, notes, curves, parts = int(np.clip(random.choice([62, 67]), lowest, highest)), 0.2, [], [], []
    for kind in random.permutation([kind for kinds in GROUPS.values() for kind in kinds]):
        cents = curve(str(kind), random.uniform(0.7, 1.2), random)
        beside = random.uniform(0.15, 0.5) * random.choice([-1, 1]) if kind != "in tune" else 0.0
        start = tonic + random.choice([0, 2, 4, 5, 7]) + beside
        parts.append((round(at * RATE), glided(bank, name, start, cents)))
        notes.append(Note(at, at + FRAME * len(cents), round(start)))
        curves.append((GROUP_OF[str(kind)], 100 * start + cents))                  # cents above MIDI's key 0
        at += FRAME * len(cents) + 0.05
    alone = np.zeros(round((at + 0.3) * RATE), np.float32)
    for begin, sound in parts: alone[begin:begin + len(sound)] += sound
    figure = np.array([[0.4 * k, 0.4 * k + 0.8, tonic - 12 + (-12, 0, 4, 7)[k % 4], 70]
                       for k in range(int(at / 0.4) + 1)])
    played = render(piano, figure, "piano", seconds=len(alone) / RATE)[:len(alone)]
    played *= np.sqrt(np.square(alone).mean() / np.square(played).mean())
    return {"player": name, "notes": notes, "curves": curves, "alone": alone, "over a piano": alone + played,
            "piano": [Note(on, off, int(pitch)) for on, off, pitch, _ in figure]}


def errors(item: dict, where) -> dict[str, list[float]]:  # where: seconds (n,), note -> cents, NaN for nothing
    "Of each group: cents off, at every frame."
    out = {group: [] for group in GROUPS}
    for note, (group, cents) in zip(item["notes"], item["curves"]):
        at = note.onset + FRAME * np.arange(len(cents))
        inside = (at > note.onset + EDGE) & (at < note.offset - EDGE)
        off = np.abs(where(at, note) - cents)[inside]
        out[group] += np.where(np.isfinite(off), off, 1e4).round(2).tolist()
    return out


def of_cents(notes, cents: np.ndarray, contours=None):
    "Where one number a note says that the pitch is, or a contour where there is one."
    steady = {(note.onset, note.pitch): 100 * note.pitch + np.nan_to_num(place) for note, place in zip(notes, cents)}
    moving = of_contours(notes, contours) if contours is not None else None
    glides = {(note.onset, note.pitch) for note, contour in zip(notes, contours or [None] * len(notes))
              if contour is not None}
    def where(at, note):
        if (note.onset, note.pitch) in glides: return moving(at, note)
        return np.full(len(at), steady[note.onset, note.pitch])
    return where


def ours(item: dict, setting: str) -> dict[str, tuple]:
    "What the package's own measurements say, and their processor seconds."
    notes = item["notes"] + (item["piano"] if setting == "over a piano" else [])
    (cents, _), first = timed(measure_cents, item[setting], notes, RATE)
    contours, second = timed(follow_pitch, item[setting], notes, RATE)
    every, third = timed(follow_pitch, item[setting], notes, RATE, always=True)
    return {"measure_cents": (errors(item, of_cents(notes, cents)), first),
            "follow_pitch, of every note": (errors(item, of_contours(notes, every)), third),
            "--pitch-bend": (errors(item, of_cents(notes, cents, contours)), first + second)}


def added(rows: list[dict]) -> dict:
    "Median error, and the share within 25 cents, of each group and of all frames."
    table = {group: np.concatenate([row[group] for row in rows]) for group in GROUPS}
    table["all"] = np.concatenate(list(table.values()))
    return {group: dict(median=float(np.median(off)), near=float((off <= NEAR).mean()), frames=len(off))
            for group, off in table.items()}


def report(result: dict) -> str:
    cell = lambda one: "none" if one["median"] > 5000 else f"{one['median']:.1f}, {100 * one['near']:.0f} %"
    tables = []
    for setting in SETTINGS:
        rows = [{"estimator": name} | {group: cell(row[setting][group]) for group in (*GROUPS, "all")}
                for name, row in result["estimators"].items()]
        tables.append(f"**{setting}**\n\n{format_table(rows)}")
    costs = ", ".join(f"{name} {row['cpu']:.3f}" for name, row in result["estimators"].items())
    joined = "\n\n".join(tables)
    return f"""# Where a note sounds: estimators of pitch

`{result['command']}`

{result['phrases']} phrases of recorded notes ({', '.join(result['players'])}), {result['seconds']:.0f} s, of nine \
notes each. In each cell: how far off the estimate is (median, cents), and the share of frames within {NEAR} cents. \
The first three are given the notes; the others find the pitch themselves. *Its stem*: by the default separator, \
weights {result['weights']}; it gains {result['gained']:.1f} dB here.

{joined}

Processor seconds for a second of sound, on one thread: {costs}; the separator {result['separator_cpu']:.2f}.

{result['machine']}
"""


def gained(estimate: np.ndarray, item: dict) -> float:
    "Improvement of the stem over the mixture in SI-SDR."
    from instsep.metrics import si_sdr_improvement
    return float(si_sdr_improvement(estimate[None], item["alone"][None], item["over a piano"][None])[0])


def main():
    parser = arguments(__doc__)
    parser.add_argument("--notes", default=NOTES, help="folder of recorded notes")
    parser.add_argument("--estimators", nargs="*", help="names; else all that are installed")
    parser.add_argument("--phrases", type=int, default=2, help="of each instrument")
    parser.add_argument("--cache", default="pitch_estimators_cache.jsonl", help="what the estimators found")
    parser.add_argument("--name", default="pitch_estimators")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cache, random, folder = Cache(args.cache), np.random.default_rng(5), Path(args.notes)
    read = lambda path, name: record_folder(folder / path, name, sample_rate=RATE, progress=False)
    piano = read(PIANO, "piano")
    items = [phrase(bank, name, piano, random) for name in TRIO_PLAYERS for bank in [read(PLAYERS[name], name)]
             for _ in range(args.phrases)]
    seconds = sum(len(item["alone"]) for item in items) / RATE
    separator, spent, gains = Separator.from_pretrained(HELD_OUT_WEIGHTS / "trio-informed"), 0.0, []
    for item in items:
        stems, cpu = timed(separator.separate, item["over a piano"][None], RATE)
        item["its stem"] = stems[item["player"]][0].numpy().astype(np.float32)
        spent += cpu
        gains.append(gained(item["its stem"], item))
    table = {}
    def row(name, found: dict, cpu: float):
        table[name] = {setting: added(rows) for setting, rows in found.items()}
        table[name]["cpu"] = cpu / len(SETTINGS) / seconds
        print(name, {setting: round(table[name][setting]["all"]["near"], 3) for setting in SETTINGS}, flush=True)
    own = {setting: [ours(item, setting) for item in items] for setting in SETTINGS}
    for name in own["alone"][0]:
        row(name, {setting: [found[name][0] for found in rows] for setting, rows in own.items()},
            sum(found[name][1] for rows in own.values() for found in rows))
    for name, run in estimators(args.estimators).items():
        def make(run=run):
            run(items[0]["alone"][:RATE])                      # what only the first call costs is not counted
            found, cpu = {setting: [] for setting in SETTINGS}, 0.0
            for setting, rows in found.items():
                for item in items:
                    track, took = timed(run, item[setting])
                    rows.append(errors(item, of_track(*track)))
                    cpu += took
            return dict(found=found, cpu=cpu)
        try: answer = cache((name, args.phrases), make)
        except Exception as error: print(f"{name}: left out ({type(error).__name__}: {error})")
        else: row(name, answer["found"], answer["cpu"])
    result = dict(command="python benchmarks/pitch_estimators.py", weights=shipped_weights_id(), phrases=len(items),
                  seconds=seconds, players=list(TRIO_PLAYERS), estimators=table, gained=float(np.mean(gains)),
                  separator_cpu=spent / seconds, machine=f"{processor()}, torch {torch.__version__}, one thread")
    write_results(RESULTS / args.name, report(result), result)


if __name__ == "__main__": main()
