"""Train the network that corrects how loud notes were measured to be.

    OMP_NUM_THREADS=1 python benchmarks/velocities.py --bank data/bank.safetensors --pieces data/pieces.npz

The transcriber stays as it is. Mixtures and solos of training pieces as they are played are transcribed, and the notes
found are matched with the true ones; what `MeasuredNotes` shows of them is given to the network, and velocities are its
target, in decibels beside the mean of their instrument in their mixture. A note bank's ranks from soft to loud are no
velocities, and its strings still less: `levelled` brings each instrument to 40 dB for a factor of 10 first. What
the network sees is kept in --cache. Weights are written beside the transcriber's, and the log to
nbs/results/velocities_run.json. What it gains is in benchmarks/results/dynamics.md.
"""
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import LOGS, register_others, train_averaged, training_arguments, write_json
from dynamics import PROGRAM, TRIO, levelled
from instsep.core import atomic_path
from instsep.frames import FrameTranscriber
from instsep.inference.levels import LevelNetwork, MeasuredNotes, level_features
from instsep.inference.registry import LEVEL_WEIGHTS, WEIGHTS
from instsep.metrics import match_notes
from instsep.mixtures import Mixtures, balanced
from instsep.music.pieces import PieceBank
from instsep.sound.notebank import NoteBank
from instsep.training.performance import PERFORMED_AUGMENTATION, expressive_player, humanize_phrases
from offsets import RATE, as_notes, transcribed, written

CHOICES = dict(hidden=64, dropout=0.35, learning_rate=2e-3, decay=0.1, noise=0.15, batch=8, minutes=3.5, seed=0)
SETS = dict(mixtures=(295, 4711, 8.0, TRIO), piano=(160, 5001, 12.0, ("piano",)),        # items, seed, seconds
            guitar=(70, 5002, 12.0, ("guitar",)), clarinet=(60, 5003, 12.0, ("clarinet",)))


# ---- what is learnt from

def item(transcriber, score, stems):
    "Of the notes found: features, level, nearness, who; and the true velocity in decibels, where there is one."
    wave = stems.sum(0).astype(np.float32)
    notes, who, meter, views = transcribed(transcriber, wave)
    order = np.argsort(notes[:, 0], kind="stable")
    notes, who, every = notes[order], who[order], np.arange(len(notes))
    if not len(notes):
        return None
    true, target = as_notes(score.parts, len(wave) / RATE), np.full(len(notes), np.nan, np.float32)
    for a, b in match_notes(true, written(notes, who), offset_ratio=None):
        if true[a].program == PROGRAM[TRIO[who[b]]]:
            target[b] = 40 * np.log10(true[a].velocity)
    partials = meter.partials(notes[:, 2], notes[:, 0] * transcriber.network.frame_rate)
    measured = MeasuredNotes(views, partials, notes, who, meter.resolution)
    return dict(features=measured.features(every), level=measured.level.astype(np.float32),
                near=measured.nearness(every)[1], who=who, target=target)


def items(args, transcriber):
    "What is kept of all sets, made where it is not there."
    made = []
    for name, (count, seed, seconds, instruments) in SETS.items():
        data = None
        for i in range(args.times * count):
            place = Path(args.cache) / f"{name}_{i:03d}.npz"
            if not place.is_file():
                if not made:
                    bank = levelled(NoteBank.load(args.bank), uneven=0.5)
                    made = [bank, balanced(bank), PieceBank.load(args.pieces).split()["train"]]
                bank, instances, pieces = made
                alone = len(instruments) == 1
                data = data or Mixtures(
                    pieces, expressive_player(bank), {k: instances[k] for k in (instruments if alone else instances)},
                    instruments=instruments, sample_rate=RATE, seconds=seconds, seed=seed,
                    absent=0.0 if alone else 0.25, other=0.0 if alone else 0.35,
                    performance=humanize_phrases, augmentation=PERFORMED_AUGMENTATION,
                    **(dict(kinds=dict(unrelated=1.0)) if alone else {}))
                kept = item(transcriber, *data.item(i))
                place.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(place) as temporary, open(temporary, "wb") as file:
                    np.savez_compressed(file, **(kept or {}))
            with np.load(place) as held:
                if held.files:
                    yield {key: torch.from_numpy(held[key]) for key in held.files}


# ---- training

def loss(levels, one):
    "Huber's, in shares of the variance of an instrument's velocities in a mixture; sum over notes, and their count."
    total, count = 0.0, 0
    for k in range(len(TRIO)):
        of = (one["who"] == k) & one["target"].isfinite()
        if (notes := int(of.sum())) >= 4:
            true, estimated = (x[of] - x[of].mean() for x in (one["target"], levels))
            spread = true.pow(2).mean() + 4
            total = total + notes * 2 * nn.functional.huber_loss(estimated, true, delta=6.0) / spread
            count += notes
    return total, count


def train(data, *, hidden, dropout, learning_rate, decay, noise, batch, minutes, seed):
    "A network with averaged weights, for features as they are, and the mean loss of each pass."
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    data = [one for one in data if loss(one["level"], one)[1]]
    features = torch.cat([one["features"] for one in data])
    mean, scale = features.mean(0), features.std(0) + 0.05
    network = LevelNetwork(features.shape[1], hidden, dropout=dropout)
    def batches(): return np.array_split(draw.permutation(len(data)), max(1, len(data) // batch))
    def mean_loss(some):
        value, count = 0.0, 0
        for one in (data[i] for i in some):
            x = (one["features"] - mean) / scale
            more, notes = loss(network(x + noise * torch.randn_like(x), one["level"], one["near"]), one)
            value, count = value + more, count + notes
        return value / count
    passes = train_averaged(network, batches, mean_loss, learning_rate=learning_rate, minutes=minutes, decay=decay,
                            rise=20)
    with torch.no_grad():                                # the first layer takes the features as they are
        network.input.weight /= scale
        network.input.bias -= network.input.weight @ mean
    return network, passes


def main():
    parser = training_arguments(__doc__, cache="data/velocities")
    parser.add_argument("--times", type=int, default=6, help="so many times the mixtures and solos of `SETS`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register_others()
    transcriber = FrameTranscriber.from_pretrained()
    data = list(items(args, transcriber))
    network, passes = train(data, **CHOICES)
    assert network.input.in_features == level_features(len(TRIO))
    network.save(WEIGHTS / "trio-notes" / LEVEL_WEIGHTS)
    write_json(LOGS / "velocities_run.json", dict(
        command="OMP_NUM_THREADS=1 python benchmarks/velocities.py --bank BANK --pieces PIECES",
        sets={name: dict(items=args.times * count, seed=seed, seconds=seconds)
              for name, (count, seed, seconds, _) in SETS.items()},
        notes=int(sum(one["target"].isfinite().sum() for one in data)),
        weights=sum(p.numel() for p in network.parameters()), torch=torch.__version__, **CHOICES,
        losses=[round(value, 3) for value in passes]))


if __name__ == "__main__":
    main()
