"""Train the network that looks at offsets again, and what it gains on sets that no training heard.

    OMP_NUM_THREADS=1 python benchmarks/offsets.py --train --bank data/bank.safetensors --pieces data/pieces.npz
    OMP_NUM_THREADS=1 python benchmarks/offsets.py --notes ../shared/reference/notes \\
        --recordings ../shared/reference/recordings

The transcriber stays as it is. Mixtures of training pieces as they are played are transcribed, and the notes found are
matched with the true ones: what a note's window shows (`NoteViews`) is given to the network, the true offset is its
target. With --train the weights are written beside the transcriber's, and the log to nbs/results/offsets_run.json;
windows are kept in --cache. Without, offsets of held-out pieces are scored: on a held-out soundfont, and, with the
weights trained without these, on recorded notes of held-out banks, as they are played; recordings are looked at
last. Results go to benchmarks/results/offsets.json and .md.
"""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import (HELD_OUT_SOUNDFONT, LOGS, RESULTS, exact_mixtures, recorded_bank, register_others, soundfonts,
                    train_averaged, train_or_score, training_arguments, transcriber_for, write_json, write_results)
from dynamics import BANKS, PROGRAM, TRIO, recorded
from instsep.frames import NotePicker
from instsep.inference.dynamics import DynamicsConfig, PartialMeter
from instsep.inference.offsets import OffsetNetwork, likeliest_offsets, stack_views
from instsep.inference.registry import OFFSET_WEIGHTS, WEIGHTS
from instsep.metrics import format_table, match_notes
from instsep.mixtures import Gain, Mixtures, Room, balanced
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.sound.audio import mono_blocks
from instsep.sound.notebank import NoteBank
from instsep.training.performance import (PERFORMED_AUGMENTATION, RecordingDirt, expressive_player,
                                          humanize_phrases)

RATE = 22050
CHOICES = dict(hidden=64, dropout=0.25, learning_rate=2e-3, batch=64, minutes=6.0, seed=0)


# ---- a mixture's notes, found and true

def as_notes(parts, seconds):
    "Of the three instruments, those that begin in the mixture."
    return [Note(on, min(off, seconds), int(pitch), int(np.clip(velocity, 1, 127)), PROGRAM[name])
            for name in TRIO for on, off, pitch, velocity in np.asarray(parts.get(name, []), float).reshape(-1, 4)
            if 0 <= on < seconds - 0.02]


def mono(sound):  # (samples,) or (channels, samples), 44.1 kHz -> (samples,), 22 050 Hz
    return np.concatenate(list(mono_blocks(np.asarray(sound, np.float32).reshape(-1, sound.shape[-1]), 44100, RATE)[0]))


def transcribed(transcriber, wave, active=None):
    """Notes as their posteriors end, instruments, the meter, and what the network is shown, as `FrameTranscriber` does
    it."""
    config = transcriber.network.config
    picker, views = NotePicker(len(TRIO), transcriber.network.frame_rate, transcriber.pick), transcriber.note_views()
    meter = PartialMeter(RATE, config.n_fft, config.hop, np.arange(21, 109), spectra=views.add_spectrum)
    for posteriors in transcriber.probabilities(meter.listen([wave]), active):
        views.add_posteriors(picker.add(posteriors))
    notes, who, _ = picker.finish()
    meter.measure(*picker.take_new(), settled=picker.frames, last=True)
    return notes, who, meter, views


def written(notes, who):
    return [Note(on, off, int(pitch), int(max(velocity, 1)), PROGRAM[TRIO[k]])
            for k, (on, off, pitch, velocity) in zip(who, notes.tolist())]


# ---- training

def examples(transcriber, bank, pieces, count, seed=4711):
    "Windows of the notes found that are right, their true offsets in frames from the window's beginning."
    data = Mixtures(pieces, expressive_player(bank), balanced(bank), sample_rate=RATE, seconds=8.0, seed=seed,
                    absent=0.25, other=0.35, performance=humanize_phrases, augmentation=PERFORMED_AUGMENTATION)
    rate = transcriber.network.frame_rate
    for i in range(count):
        score, stems = data.item(i)
        notes, who, _, views = transcribed(transcriber, stems.sum(0).astype(np.float32))
        if not len(notes):
            continue
        true = as_notes(score.parts, data.seconds)
        first, windows = views.views(notes, who)
        for a, b in match_notes(true, written(notes, who), offset_ratio=None):
            yield windows[b].astype(np.float16), true[a].offset * rate - first[b]


def loss(network, windows, ends):
    "Cross-entropy with a triangle around the true end; what is after the window is later."
    views, lengths = stack_views([window.astype(np.float32) for window in windows])
    if network.training:
        views = nn.functional.dropout(views + 0.05 * torch.randn_like(views), 0.08)
    length, at = lengths.numpy()[:, None], np.arange(views.shape[1])[None]
    end = np.clip(np.asarray(ends)[:, None], 0, length)
    near = np.maximum(1 - np.abs(at - end) / 1.5, 0) * (at < length)
    target = np.concatenate([near, np.clip(1 - (length - end) / 1.5, 0, 1)], 1)
    target /= np.maximum(target.sum(1, keepdims=True), 1e-6)
    return -(torch.from_numpy(target.astype(np.float32)) * network(views, lengths)).sum(1)


def train(windows, ends, *, hidden, dropout, learning_rate, batch, minutes, seed):
    "A network with averaged weights, and the mean loss of each pass."
    torch.manual_seed(seed)
    draw, network = np.random.default_rng(seed), OffsetNetwork(windows[0].shape[1], hidden, dropout=dropout)
    lengths = np.array([len(window) for window in windows])
    def batches():
        order = np.argsort(lengths + draw.uniform(0, 25, len(lengths)))
        some = [order[i:i + batch] for i in range(0, len(order), batch)]
        draw.shuffle(some)
        return some
    passes = train_averaged(
        network, batches, lambda some: loss(network, [windows[i] for i in some], [ends[i] for i in some]).mean(),
        learning_rate=learning_rate, minutes=minutes)
    return network, passes


def train_and_write(args, transcriber):
    register_others()
    place = Path(args.cache) / f"offsets_{args.count}.npz"
    if not place.is_file():
        bank, pieces = NoteBank.load(args.bank), PieceBank.load(args.pieces).split()["train"]
        windows, ends = zip(*examples(transcriber, bank, pieces, args.count))
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, windows=np.concatenate(windows), lengths=[len(window) for window in windows], ends=ends)
    with np.load(place) as held:
        windows = np.split(held["windows"], np.cumsum(held["lengths"])[:-1])
        ends = held["ends"]
    network, passes = train(windows, ends, **CHOICES)
    network.save(WEIGHTS / "trio-notes" / OFFSET_WEIGHTS)
    write_json(LOGS / "offsets_run.json", dict(
        command="OMP_NUM_THREADS=1 python benchmarks/offsets.py --train --bank BANK --pieces PIECES",
        mixtures=args.count, seconds=8.0, notes=len(windows), weights=sum(p.numel() for p in network.parameters()),
        torch=torch.__version__, **CHOICES, losses=[round(value, 3) for value in passes]))


# ---- scores

def played(data, count):
    "Mixtures, their notes, and on which bank each instrument was played."
    for i in range(count):
        score, stems = data.item(i)
        yield stems.sum(0), score.parts, score.instances


def held_out_sets(args):
    "Label, and sounds at 44.1 kHz with their notes; recordings are looked at last."
    pieces, fonts = PieceBank.load(args.pieces).split()["valid"], soundfonts()
    if HELD_OUT_SOUNDFONT in fonts:
        yield "held-out soundfont", played(exact_mixtures(fonts[HELD_OUT_SOUNDFONT], pieces, seed=900), args.items)
    if args.notes and Path(args.notes).is_dir():
        bank = recorded_bank(args.notes, BANKS)
        yield "held-out banks, as played", played(Mixtures(
            pieces, expressive_player(bank, tuning=5.0), {name: bank.of(name) for name in TRIO}, sample_rate=44100,
            seconds=8.0, seed=901, absent=0.2, performance=humanize_phrases,
            augmentation=(Gain((-5, 5)), Room(0.3), RecordingDirt(0.3))), args.items)
    else:
        print("held-out banks: no --notes, left out")
    if args.recordings and Path(args.recordings).is_dir():
        for label, names in (("R01 to R04", ["R01", "R02", "R03", "R04"]), ("R05, piano alone", ["R05"]),
                             ("R07, a real guitar", ["R07"])):
            yield label, ((*make(), {}) for _, make in recorded(args.recordings, names))
    else:
        print("recordings: no --recordings, left out")


def struck_again(notes, note):
    "Whether its key is struck again while it is held, by the same instrument: another voice of a score."
    return any(other.pitch == note.pitch and note.onset + 0.01 < other.onset < note.offset - 0.02 for other in notes)


def scores(items):
    "Of true and found notes: F1 of onsets, with offsets, and by instrument; how ends of notes found are wrong."
    row, hits, count = {}, np.zeros(2), 0
    for true, found in items:
        hits += len(match_notes(true, found, offset_ratio=None)), len(match_notes(true, found))
        count += len(true) + len(found)
    row["onset F1"], row["onset+offset F1"] = 2 * hits / count
    off = []
    for name in TRIO:
        hits = count = played_notes = 0
        for true, found in items:
            true, found = ([note for note in notes if note.program == PROGRAM[name]] for notes in (true, found))
            pairs = match_notes(true, found, offset_ratio=None)
            off += [((found[b].offset - true[a].offset), 0.2 * (true[a].offset - true[a].onset),
                     struck_again(true, true[a])) for a, b in pairs]
            hits, count = hits + len(match_notes(true, found)), count + len(true) + len(found)
            played_notes += len(true)
        row[f"onset+offset F1, {name}"] = 2 * hits / count if played_notes else None
    error, forgiven, again = np.array(off).T
    early = error < -np.maximum(forgiven, 0.05)
    return row | {"too early": float(early.mean()), "too early, struck again": float((early & (again > 0)).mean()),
                  "too late": float((error > np.maximum(forgiven, 0.05)).mean())}


WAYS = ("where the posterior falls", "a piano's back to where the energy falls", "the network's",
        "the network's where it is surer, else the posterior's", "and then a piano's back",
        "and a guitar's a little later: what ships", "the true ones, where a note was found")


def by_bank(instances, ways):
    "Each held-out bank by itself: notes of its instrument, in the mixtures where it is played on it."
    for name in TRIO:
        own = lambda notes: [note for note in notes if note.program == PROGRAM[name]]
        for bank in sorted({each[name] for each in instances if name in each}):
            line = dict(bank=bank, instrument=name)
            for way in (WAYS[0], WAYS[-2]):
                items = [(own(true), own(found)) for each, (true, found) in zip(instances, ways[way])
                         if each.get(name) == bank]
                row, line["notes"] = scores(items), sum(len(true) for true, _ in items)
                line |= {"onset F1": row["onset F1"], f"onset+offset F1, {way}": row["onset+offset F1"]}
            yield line


def table(args, default):
    rows, banks, cost, heard = [], [], 0.0, 0.0
    for label, data in held_out_sets(args):
        ways, instances, transcriber = {name: [] for name in WAYS}, [], transcriber_for(label, default)
        for sound, parts, played_on in data:
            instances.append(played_on)
            seconds = len(sound) / 44100
            notes, who, meter, views = transcribed(transcriber, mono(sound))
            true = as_notes(parts, seconds)
            transcriber.dynamics = DynamicsConfig(ring=0.0)
            rule = transcriber.with_dynamics(notes, who, meter)
            back = transcriber.with_dynamics(notes, who, meter, views)
            transcriber.dynamics = DynamicsConfig()
            begun, looked, careful = time.process_time(), notes.copy(), notes.copy()
            looked[:, 1] = likeliest_offsets(transcriber.offsets, views, notes, who, surer=0)
            cost, heard = cost + time.process_time() - begun, heard + seconds
            careful[:, 1] = likeliest_offsets(transcriber.offsets, views, notes, who)
            shipped, known = transcriber.with_dynamics(notes, who, meter, views), notes.copy()
            for a, b in match_notes(true, written(notes, who), offset_ratio=None):
                known[b, 1] = max(true[a].offset, known[b, 0] + 0.01)
            for way, some in zip(ways.values(), (notes, rule, looked, careful, back, shipped, known)):
                way.append((true, written(some, who)))
        if label == "held-out banks, as played": banks = list(by_bank(instances, ways))
        rows += [{"set": label, "offsets": way, "items": len(items), "notes": sum(len(t) for t, _ in items),
                  **scores(items)} for way, items in ways.items()]
        for row in rows[-len(ways):]:
            print(row, flush=True)
    command = "OMP_NUM_THREADS=1 python benchmarks/offsets.py --notes NOTES --recordings RECORDINGS"
    text = (f"# Offsets\n\n`{command}`\n\nOnsets are the same in all rows. Too early, too late: share of the notes "
            "found (instrument right, too) whose end is off by more than is forgiven; too early, struck again: the "
            "share, of all notes found, that end too early and whose key the same instrument strikes again before the "
            "true end, so that one row a key has no place for it. The network costs "
            f"{cost / heard:.4f} CPU s a second of sound.\n\n" + format_table(rows, digits=3) + "\n")
    if banks: text += f"""
## Each held-out bank by itself

Only notes of its instrument are compared, in the mixtures where it is played on this bank.

{format_table(banks, digits=3)}
"""
    write_results(RESULTS / "offsets", text,
                  dict(command=command, torch=torch.__version__, cpu_s_per_s=cost / heard, rows=rows, banks=banks))


def main():
    parser = training_arguments(__doc__, cache="data/offsets")
    parser.add_argument("--notes", help="folder with recorded notes of the held-out banks")
    parser.add_argument("--recordings", help="folder with recordings")
    parser.add_argument("--count", type=int, default=1740, help="mixtures to train on")
    parser.add_argument("--items", type=int, default=24, help="mixtures of each set to score")
    train_or_score(parser, train_and_write, table)


if __name__ == "__main__":
    main()
