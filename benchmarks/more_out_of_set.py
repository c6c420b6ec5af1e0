"""More out-of-set instruments, and a guitar that is strummed: trio-informed and the transcriber inside it, trained on.

    python benchmarks/more_out_of_set.py --bank data/bank.safetensors --pieces data/pieces.npz --minutes 75 -o runs/more

As `instsep train transcriber --network both`, but an out-of-set instrument plays in 60 % of the mixtures, each
instrument of the three is missing from 35 %, and three guitar parts in ten are chords that are strummed in place of the
piece's notes. The run goes on where it was stopped. Its log, and what the weights half of the way and all of the way
score, are in nbs/results/more_out_of_set_run.json; the shares of the bank's groups are those of played_run.json.
"""
from pathlib import Path

import numpy as np
import torch

from instsep.core import TRIO
from instsep.mixtures import Mixtures, balanced
from instsep.music.pieces import PieceBank
from instsep.sound.notebank import NoteBank
from instsep.training.frames import NoteMixtures
from instsep.training.performance import PERFORMED_AUGMENTATION, expressive_player, humanize_phrases
from instsep.training.separator import Interrupt, TrainConfig, fit
from common import joint_module, training_arguments, weights_of_groups

STRINGS = 40, 45, 50, 55, 59, 64                             # MIDI pitches of the open strings, E2 to E4
CHORDS = (0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 7, 10), (0, 4, 7, 11), (0, 2, 7), (0, 5, 7), (0, 7)  # semitones
STRUMMED = 0.3                                               # share of the guitar's parts


def finger(root, chord, rng):
    "Pitches of a chord, from the lowest string with its root on: on each the lowest within five frets of the hand."
    hand = int(rng.choice([0, 0, 0, 2, 3, 5, 7]))
    found = [next((string + fret for fret in range(hand, hand + 5) if (string + fret - root) % 12 in chord), None)
             for string in STRINGS]
    sounding = [k for k, pitch in enumerate(found) if pitch is not None]
    bass = next((k for k in sounding if (found[k] - root) % 12 == 0), sounding[0])
    top = max(int(rng.integers(4, 7)), bass + 3)
    return [found[k] for k in sounding if bass <= k < top]


def strum(begin, end, rng):  # -> (n, 4): onset s, offset s, pitch, velocity; by onset
    "Chords up and down over a beat of 60 to 160 a minute, short and muted or left to ring."
    beat = 60 / rng.uniform(60, 160)
    step, key = beat / int(rng.choice([1, 2, 2, 3, 4])), int(rng.integers(12))
    shortest, density = rng.uniform(0.15, 1.0), rng.uniform(0.4, 1.0)
    sweep, loose = rng.uniform(0.003, 0.03), rng.uniform(0, 0.012)
    level, accent = rng.uniform(50, 95), rng.uniform(0, 25)
    muting = rng.random() < 0.4
    time, count, pitches, rows = begin + rng.uniform(0, beat), 0, None, []
    while time < end - 0.1:
        if pitches is None or rng.random() < 0.2:
            root = key + int(rng.choice((0, 2, 4, 5, 7, 9, 3, 8, 10)))
            pitches = finger(root, CHORDS[int(rng.integers(len(CHORDS)))], rng)
        if not count or rng.random() < density:
            struck = list(pitches)
            if count % 2 and rng.random() < 0.6: struck = struck[-int(rng.integers(2, len(struck) + 1)):][::-1]
            elif rng.random() < 0.2: struck = struck[:int(rng.integers(2, len(struck) + 1))]
            mutes = muting and rng.random() < 0.6
            held = step * (rng.uniform(0.1, 0.5) if mutes else rng.uniform(shortest, 1.2))
            velocity = level + (accent if rng.random() < 0.3 else 0) + rng.normal(0, 5)
            for k, pitch in enumerate(struck):
                onset = time + k * sweep + abs(rng.normal(0, loose))
                offset = max(onset + 0.04, time + held + rng.normal(0, 0.015))
                rows.append((onset, offset, pitch, np.clip(np.rint(velocity + rng.normal(0, 7)), 15, 125)))
        time, count = time + step, count + 1
    notes = np.array(sorted(row for row in rows if row[0] < end)).reshape(-1, 4)
    for k, (onset, offset, pitch, _) in enumerate(notes):    # struck again, a string begins anew
        again = notes[k + 1:, 0][notes[k + 1:, 2] == pitch]
        if len(again): notes[k, 1] = min(offset, max(again[0] - 0.005, onset + 0.03))
    return notes


def humanize_or_strum(notes, instrument, rng):
    "`humanize_phrases`, but for guitar parts that are strummed."
    if instrument.name != "guitar" or not len(notes) or rng.random() >= STRUMMED:
        return humanize_phrases(notes, instrument, rng)
    begin = float(notes[:, 0].min())
    chords = strum(begin, float(max(notes[:, 1].max(), begin + 1)), rng)
    return chords if len(chords) else humanize_phrases(notes, instrument, rng)


def main():
    args = training_arguments(__doc__, minutes=75.0, output="runs/more").parse_args()
    torch.set_num_threads(1)
    bank, pieces = NoteBank.load(args.bank), PieceBank.load(args.pieces).split()
    make = lambda part, seed, **options: NoteMixtures(Mixtures(
        pieces[part], expressive_player(bank), balanced(bank, weights_of_groups(bank)), instruments=TRIO,
        sample_rate=22050, seconds=6.0, seed=seed, absent=0.35, other=0.6, performance=humanize_or_strum,
        augmentation=PERFORMED_AUGMENTATION, **options))
    plan = TrainConfig(steps=10**7, batch=4, learning_rate=5e-4, warmup=40, ema=0.995, floor_db=-20.0,
                       validate_every=150, save_every=50, seed=args.seed, workers=0, bf16=True, minutes=args.minutes)
    module = joint_module(plan)
    fit(module, make("train", 2000 + args.seed), Path(args.output) / "run", valid=[make("valid", 2, length=32)],
        accelerator="cpu", callbacks=[Interrupt()])
    module.keep(args.output, dict(steps=module.global_step))


if __name__ == "__main__": main()
