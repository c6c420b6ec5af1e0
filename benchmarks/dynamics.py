"""Velocities, offsets and repetitions of the frame-wise transcriber, one change a row: what measuring gains.

    OMP_NUM_THREADS=1 python benchmarks/dynamics.py --notes ../shared/reference/notes \\
        --recordings ../shared/reference/recordings

Sets, none of which the transcriber was trained on: validation pieces on a held-out soundfont, in mixtures and each
instrument alone; on recorded notes of held-out banks, as they are and levelled (a bank's ranks from soft to loud are no
velocities, and its strings still less), transcribed with weights trained without these; one key six to twelve times a
second; recordings, which were looked at last. Pieces are played with dynamics: a level for each part, phrases that
swell, accents, a chord's highest note in front. A set whose files are not there is left out with a line. Posteriors
are computed once and kept in --cache. Results go to benchmarks/results/dynamics.json and .md.
"""

import argparse
import csv
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from instsep.core import atomic_path
from instsep.frames import LOWEST_PITCH, PITCHES, FrameTranscriber, NotePicker
from instsep.inference.dynamics import DynamicsConfig, PartialMeter, onset_levels, velocities
from instsep.inference.levels import without_trend
from instsep.metrics import format_table, match_notes
from instsep.mixtures import INSTRUMENTS, Gain, Mixtures, Room, bank_player, humanize, soundfont_player
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.sound.audio import load, mono_blocks
from instsep.sound.soundfont import default_soundfont, synthesize
from common import recorded_bank, shipped_weights_id, transcriber_for

TRIO, RATE = ("clarinet", "guitar", "piano"), 44100
PROGRAM = {name: INSTRUMENTS[name].programs[0] for name in TRIO}
BANKS = dict(
    clarinet=["iowa_mis/clarinet"],
    guitar=["iowa_mis/guitar_nylon", "discord_martin_hd28/guitar_steel"],
    piano=["vcsl_upright/piano", "freepats_kw/piano"],
)


def with_dynamics(notes, instrument, rng):
    "As `humanize` plays them, but velocities move: swells over some six notes, accents, a melody above its chords."
    notes = humanize(notes, instrument, rng)
    if not len(notes):
        return notes
    swell, value = np.empty(len(notes)), rng.normal()
    for i in range(len(notes)):
        value = value * np.exp(-1 / 6) + rng.normal() * np.sqrt(1 - np.exp(-1 / 3))
        swell[i] = value
    velocity, order = np.empty(len(notes)), np.argsort(notes[:, 0])
    velocity[order] = rng.uniform(60, 90) + 12 * swell + 8 * rng.normal(size=len(notes))
    if instrument.polyphony > 1:
        top = [note[2] >= notes[np.abs(notes[:, 0] - note[0]) < 0.05, 2].max() for note in notes]
        velocity += np.where(top, 6, -4)
    notes[:, 3] = np.clip(np.rint(velocity), 15, 125)
    return notes


def levelled(bank, uneven=1.0):
    """The bank, whose ranks from soft to loud become velocities, 50 to 100, and whose strings become none; each layer
    of an instrument of the trio is as loud as 40 dB for a factor of 10 make it, beside a curve over pitch. What else
    is uneven stays, or a share of it."""
    table = bank.table
    for (name, _), rows in bank._rows.items():
        if name not in TRIO:
            continue
        velocity = table["velocity"][rows].astype(float)
        given = np.unique(velocity)
        which = np.searchsorted(given, velocity)
        if given.max() <= 48:  # ranks; six of them are strings
            ranks = np.full(len(given), 80.0) if len(given) in (1, 6) else np.linspace(50, 100, len(given))
            velocity = ranks[which]
        begins, lengths = table["start"][rows], np.minimum(table["length"][rows], bank.sample_rate // 6)
        power = [np.mean(bank.samples[a : a + n].astype(np.float32) ** 2) for a, n in zip(begins, lengths)]
        level = 20 * np.log10(np.sqrt(power) * table["scale"][rows] + 1e-9) - 40 * np.log10(velocity)
        octaves = (table["pitch"][rows] - 60) / 12
        curve = [octaves**k for k in range(3 if len(rows) > 12 else 2)]
        shown = np.stack(curve + [which == k for k in range(1, len(given))], 1).astype(float)
        fitted = np.linalg.solve(shown.T @ shown + 0.0025 * np.eye(shown.shape[1]), shown.T @ level)
        layers, rest = shown[:, len(curve) :] @ fitted[len(curve) :], level - shown @ fitted
        table["scale"][rows] *= 10 ** (-(layers + (1 - uneven) * rest) / 20)
        table["velocity"][rows] = np.rint(velocity)
    return bank


# ---- what is transcribed


@dataclass
class Item:
    "A mono recording at the transcriber's rate, its notes, and the network's posteriors."

    set: str
    name: str
    wave: np.ndarray  # (samples,)
    notes: list[Note]
    posteriors: np.ndarray  # (heads, instruments, pitches, frames)


def to_notes(parts, seconds):
    return sorted(
        Note(on, min(off, seconds), int(pitch), int(np.clip(round(velocity), 1, 127)), PROGRAM[name])
        for name, notes in parts.items()
        if name in TRIO
        for on, off, pitch, velocity in np.asarray(notes, float).reshape(-1, 4).tolist()
        if 0 <= on < seconds - 0.02
    )


def played(pieces, player, instances, count, seed, *, names=TRIO, **options):
    sizes = dict(sample_rate=RATE, seconds=8.0, seed=seed, performance=with_dynamics)
    data = Mixtures(pieces, player, instances, instruments=names, **sizes, **options)
    for i in range(count):
        yield f"{i:03d}", lambda i=i: (lambda score, stems: (stems.sum(0), score.parts))(*data.item(i))


def on_banks(folder, prepared=lambda bank: bank):
    "A player on recorded notes, which are read when the first is played."
    banks = []

    def play(*args):
        if not banks:
            banks.append(bank_player(prepared(recorded_bank(folder, BANKS)), shift=1.0))
        return banks[0](*args)

    return play


def repeated(speeds):  # notes a second
    for name, programs, pitches in (
        ("piano", (0,), (48, 67, 79)),
        ("guitar", (24, 25), (48, 67)),
        ("clarinet", (71,), (55, 67, 76)),
    ):
        for program in programs:
            for pitch in pitches:
                for speed in speeds:
                    notes = [Note(0.5 + k / speed, 0.5 + (k + 0.9) / speed, pitch, 80 + 20 * (k % 2), program)
                             for k in range(24)]
                    part = {name: [(n.onset, n.offset, n.pitch, n.velocity) for n in notes]}
                    yield (f"{name}_{program}_{pitch}_{speed}",
                           lambda notes=notes, part=part: (synthesize(notes).mean(0), part))


def recorded(folder, wanted):
    def read(path):
        parts = {}
        for stem in json.loads((path / "manifest.json").read_text())["stems"]:
            with open(path / stem["notes_csv"], newline="", encoding="utf-8") as file:
                parts[stem["instrument"]] = [  # pitches as they were measured, R07's beside the keys
                    [float(row["onset_s"]), float(row["offset_s"]), round(float(row["midi"])),
                     float(row.get("velocity") or 64)] for row in csv.DictReader(file)
                ]
        return load(path / "mixture.flac", sample_rate=RATE, mono=True)[0][0], parts

    for path in sorted(p for name in wanted for p in Path(folder).glob(f"{name}_*/")):
        yield path.name, lambda path=path: read(path)


def all_sets(args):
    "Set, and its items: name, and a function that makes sound (samples,) and parts."
    pieces, font = PieceBank.load(args.pieces).split()["valid"], default_soundfont()
    programs = {name: [str(program) for program in INSTRUMENTS[name].programs] for name in TRIO}
    level = dict(absent=0.2, augmentation=(Gain((-3, 3)),))
    yield "held-out soundfont, mixtures", played(pieces, soundfont_player(font, RATE), programs, 24, 310, **level)
    for name in TRIO:
        yield (
            f"held-out soundfont, {name} alone",
            played(
                pieces,
                soundfont_player(font, RATE),
                {name: programs[name]},
                6,
                320,
                names=(name,),
                absent=0.0,
                kinds=dict(unrelated=1.0),
                augmentation=(),
            ),
        )
    if args.notes and Path(args.notes).is_dir():
        yield (
            "held-out banks, mixtures",
            played(
                pieces,
                on_banks(Path(args.notes)),
                BANKS,
                10,
                330,
                absent=0.2,
                augmentation=(Gain((-3, 3)), Room(0.3)),
            ),
        )
        options = dict(augmentation=(Gain((-3, 3)), Room(0.3)))
        even = on_banks(Path(args.notes), levelled)
        yield "held-out banks, levelled: mixtures", played(pieces, even, BANKS, 24, 330, absent=0.2, **options)
        for name in TRIO:
            alone = dict(names=(name,), absent=0.0, kinds=dict(unrelated=1.0), **options)
            yield f"held-out banks, levelled: {name} alone", played(pieces, even, {name: BANKS[name]}, 6, 340, **alone)
    else:
        print("held-out banks: no --notes, left out")
    yield "8 a second, held-out soundfont", repeated([8])
    yield "6, 10 and 12 a second, held-out soundfont", repeated([6, 10, 12])
    if args.recordings and Path(args.recordings).is_dir():
        yield "R07, a real guitar", recorded(args.recordings, ["R07"])
        yield "R05, piano alone", recorded(args.recordings, ["R05"])
        yield "R01 to R04", recorded(args.recordings, ["R01", "R02", "R03", "R04"])
    else:
        print("recordings: no --recordings, left out")


def made(label, items, transcriber, cache):
    for name, make in items:
        place = cache / f"{label.replace(' ', '_').replace(',', '')}__{name}.npz"
        if not place.is_file():
            sound, parts = make()
            blocks, _ = mono_blocks(
                np.asarray(sound, np.float32).reshape(1, -1), RATE, transcriber.network.config.sample_rate
            )
            wave = np.concatenate(list(blocks))
            posteriors = np.concatenate(list(transcriber.probabilities([wave])), -1)
            known = {key: np.asarray(notes, float).reshape(-1, 4) for key, notes in parts.items()}
            with atomic_path(place) as temporary:
                with open(temporary, "wb") as file:
                    np.savez(file, wave=wave, posteriors=posteriors.astype(np.float16), **known)
        with np.load(place) as held:
            wave, posteriors = held["wave"], held["posteriors"].astype(np.float32)
            parts = {key: held[key] for key in held.files if key not in ("wave", "posteriors")}
        yield Item(label, name, wave, to_notes(parts, len(wave) / transcriber.network.config.sample_rate), posteriors)


# ---- rows and scores


def near_neighbours(level, own, pitch, onset, weight=0.1, reach=0.5):
    "Levels pulled towards the mean of the notes within about half a second, the more the less of a note is its own."
    kernel = np.exp(-np.abs(onset[:, None] - onset) / reach) * (own + 0.02)
    return (own * level + weight * (kernel @ level) / kernel.sum(1)) / (own + weight)


LOUD, STRUCK = DynamicsConfig(release=0.0, ring=0.0), DynamicsConfig(ring=0.0)
SHIPS = "networks look at levels and ends again, a guitar's ends later: what ships"
ROWS = (
    ("the network's", None, None, None),
    ("velocities: level at the onset", LOUD, None, None),
    ("left out: a line over pitch taken off", LOUD, lambda *seen: without_trend(*seen[:3]), None),
    ("left out: covered notes as their neighbours", LOUD, near_neighbours, None),
    ("left out: all ends back to where the energy falls", DynamicsConfig(damped=TRIO, ring=0.0), None, None),
    ("offsets: the piano's ends so", STRUCK, None, None),
    ("repetitions: lower peaks count", STRUCK, None, "near"),
    ("repetitions: still lower ones in an even row", STRUCK, None, "even"),
    (SHIPS, DynamicsConfig(), None, "even"),
)


def transcribed(transcriber, item, dynamics, adjust, repetitions, networks=False):
    "What `FrameTranscriber` would make of these posteriors, and the CPU seconds of measuring."
    c, pick = (
        transcriber.network.config,
        {
            None: replace(transcriber.pick, repeat=transcriber.pick.onset, even=transcriber.pick.onset),
            "near": replace(transcriber.pick, even=transcriber.pick.onset),
            "even": transcriber.pick,
        }[repetitions],
    )
    picker = NotePicker(len(c.instruments), transcriber.network.frame_rate, pick)
    views, shared = transcriber.note_views() if networks else None, picker.add(item.posteriors)
    notes, who, _ = picker.finish()
    begun = time.process_time()
    if dynamics:
        heard = views and views.add_spectrum
        meter = PartialMeter(c.sample_rate, c.n_fft, c.hop, np.arange(PITCHES) + LOWEST_PITCH, spectra=heard)
        if views:
            views.add_posteriors(shared)
        for _ in meter.listen([item.wave]):
            pass
        meter.measure(*picker.take_new(), settled=picker.frames, last=True)
        transcriber.dynamics = dynamics
        rate = transcriber.network.frame_rate
        if adjust:  # each instrument by itself
            level, own, _ = onset_levels(
                meter.partials(notes[:, 2], notes[:, 0] * rate), notes[:, 2], notes[:, 0], meter.resolution
            )
            for k in np.unique(who):
                level[who == k] = adjust(level[who == k], own[who == k], notes[who == k, 2], notes[who == k, 0])
        notes = transcriber.with_dynamics(notes, who, meter, views)
        if adjust:
            notes[:, 3] = velocities(level, who, config=dynamics)
    return [
        Note(on, off, int(pitch), int(velocity), PROGRAM[c.instruments[k]])
        for k, (on, off, pitch, velocity) in zip(who, notes.tolist())
    ], time.process_time() - begun


def scores(items, found):
    "Of a set: F1 of onsets, with offsets, with velocities; correlation of velocities, mean over items by notes."
    hits, counts, by = np.zeros(3), 0, {name: [] for name in TRIO}
    for item, notes in zip(items, found):
        pairs = match_notes(item.notes, notes, offset_ratio=None)
        counts += len(item.notes) + len(notes)
        hits += len(pairs), len(match_notes(item.notes, notes)), _same_velocity(item.notes, notes, pairs)
        for name in TRIO:
            true, estimated = (
                np.array(
                    [
                        (item.notes[i].velocity, notes[j].velocity)
                        for i, j in pairs
                        if item.notes[i].program == PROGRAM[name]
                    ],
                    float,
                )
                .reshape(-1, 2)
                .T
            )
            if len(true) >= 8 and np.ptp(true) and np.ptp(estimated):
                by[name].append((np.corrcoef(true, estimated)[0, 1], len(true)))
    row = dict(zip(("onset F1", "onset+offset F1", "onset+velocity F1"), 2 * hits / max(counts, 1)))
    return row | {
        f"r, {name}": float(np.average([r for r, _ in values], weights=[n for _, n in values]))
        if values
        else math.nan
        for name, values in by.items()
    }


def _same_velocity(reference, estimate, pairs, tolerance=0.1):
    "As in mir_eval: after a linear fit of the estimate."
    if not pairs:
        return 0
    true = np.array([note.velocity for note in reference], float)
    ours = (true[[i for i, _ in pairs]] - true.min()) / max(1, np.ptp(true))
    theirs = np.array([[estimate[j].velocity, 1] for _, j in pairs], float)
    return int((np.abs(theirs @ np.linalg.lstsq(theirs, ours, rcond=None)[0] - ours) < tolerance).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", default="data/pieces.npz", help="a piece bank, made by instsep pieces")
    parser.add_argument("--notes", help="folder with recorded notes of the held-out banks")
    parser.add_argument("--recordings", help="folder with recordings")
    parser.add_argument("--cache", default="data/dynamics", help="folder for what is rendered and computed once")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    shipped, rows, cost = FrameTranscriber.from_pretrained(), [], [0.0, 0.0]
    cache = Path(args.cache) / shipped_weights_id()
    cache.mkdir(parents=True, exist_ok=True)
    for label, makers in all_sets(args):
        transcriber = transcriber_for(label, shipped)
        items = list(made(label, makers, transcriber, cache))
        for name, dynamics, adjust, repetitions in ROWS:
            ships = name == SHIPS
            results = [transcribed(transcriber, item, dynamics, adjust, repetitions, ships) for item in items]
            if ships:
                cost = [
                    cost[0] + sum(cpu for _, cpu in results),
                    cost[1] + sum(len(item.wave) for item in items) / transcriber.network.config.sample_rate,
                ]
            found = [notes for notes, _ in results]
            median = [note.velocity for notes in found for note in notes]
            rows.append(
                {
                    "set": label,
                    "row": name,
                    "items": len(items),
                    "notes": sum(len(item.notes) for item in items),
                    "found": len(median),
                    **scores(items, found),
                    "median velocity": float(np.median(median)) if median else math.nan,
                }
            )
            print(rows[-1], flush=True)
    command = "OMP_NUM_THREADS=1 python benchmarks/dynamics.py --notes NOTES --recordings RECORDINGS"
    text = (
        f"# Dynamics, offsets and repetitions\n\n`{command}`\n\nEach row changes one thing; rows that were not left "
        "out keep "
        "the changes above them. Sets and what is played: see the script. F1 over all notes of a set, instruments not "
        "told apart; velocities as mir_eval compares them, after a linear fit over each item; r: correlation of "
        "velocities over the notes found, mean over items by notes. No r where the true "
        "velocities are not known or all alike, as R07's and most of R01 to R04; onset+velocity says nothing there. "
        f"Measuring and both networks cost {cost[0] / max(cost[1], 1e-9):.4f} CPU s a second of sound.\n\n"
        + format_table(rows, digits=3)
        + "\n"
    )
    place = Path(args.out) / "dynamics"
    with atomic_path(place.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    with atomic_path(place.with_suffix(".json")) as temporary:
        temporary.write_text(
            json.dumps(
                dict(command=command, torch=torch.__version__, cpu_s_per_s=cost[0] / max(cost[1], 1e-9), rows=rows),
                indent=1,
                default=float,
            ).replace("NaN", "null")
            + "\n"
        )


if __name__ == "__main__":
    main()
