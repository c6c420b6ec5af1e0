"""Train the network that asks whether a clarinet plays at all, or whether another instrument is taken for one.

    OMP_NUM_THREADS=1 python benchmarks/verifier.py --bank data/bank.safetensors --pieces data/pieces.npz

Mixtures of 8 s of training pieces, as in `out_of_set.py`: a clarinet or another melody instrument, or neither, beside
guitar and piano. `trio-notes` and the transcriber inside `trio-informed` are frozen; what `melody_places` shows of each
mixture is kept in --cache, where what is missing is made, of the first --own mixtures by the former only. The network
is trained on all of it and added to both models, which are written to --output. To know what its log odds are worth on
held-out instruments, it is trained again without each group of the bank (a soundfont, or the folders of a source),
three seeds each, and asked about that group's mixtures; to know what more mixtures are worth, with some of them, and
asked about mixtures through a held-out soundfont. The margins of `least_log_odds` were chosen by these tables,
so that fewer than one clarinet in two hundred is lost, in the separator, which takes no note away, one in a hundred;
and with a look at test pieces on a held-out soundfont, where a margin of 5 lost a clarinet. Log and tables:
nbs/results/verifier_run.json. --models was the run of `distil_notes.py` that heard all banks, before the mean of both.
"""
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import out_of_set
from common import (HELD_OUT_SOUNDFONT, LOGS, read_json, register_others, soundfonts, train_averaged,
                    training_arguments, write_json)
from instsep.core import atomic_path
from instsep.frames import PITCHES, FrameModel, least_log_odds
from instsep.inference.registry import WEIGHTS
from instsep.inference.verifier import InstrumentVerifier, distinct_keys, log_ratios
from instsep.mixtures import INSTRUMENTS, soundfont_player
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.notebank import NoteBank
from instsep.together import NoteInformedRNN, transcriber_of
from instsep.training.performance import PERFORMED_AUGMENTATION, expressive_player

KINDS = dict(other=0.52, clarinet=0.42, neither=0.06)
CHOICES = dict(dropout=0.3, learning_rate=2e-3, decay=0.3, noise=0.9, batch=32, epochs=6, most=120, averaging=0.995,
               ramp=10, warmup=50, without_odds=0.3)
PITCH = -4                                           # which number of a place is its pitch, as 44 (1 + that)
PITCH_BANDS = 30, 34, 38, 42, 46, 50, 54             # keys above A0
FEWEST = 12                                          # of a kind in a band, to count in full
LEAST = 10                                           # places of a mixture that is trained on
SEEDS = 0, 1, 2


# ---- what is learnt from

@torch.inference_mode()
def shown(model: FrameModel, sound: np.ndarray) -> dict:  # (samples,), at the model's rate
    "Of a recording what the verifier is shown, and the clarinet's share of the onsets."
    _, _, places, weights, sums, _ = out_of_set.asked_of(model, sound)
    return dict(places=places.half().numpy(), weights=weights.half().numpy(), odds=log_ratios(sums).numpy(),
                share=float(sums[0, 0] / sums[0].sum().clamp_min(1e-9)))


def kept(place: Path, make) -> dict:
    "What a transcriber shows of a mixture; where it is not kept, `make` gives the mixture and the transcriber."
    if not place.is_file():
        (kind, family, used, sound), model = make()
        groups = [instance.split("/")[0] for name, instance in used.items() if name not in ("guitar", "piano")]
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, kind=kind, family=family, group=(groups or [""])[0], **shown(model, sound))
    with np.load(place) as held:
        return dict({key: str(held[key]) for key in ("kind", "family", "group")},
                    places=torch.from_numpy(held["places"].astype(np.float32)),
                    weights=torch.from_numpy(held["weights"].astype(np.float32)),
                    odds=torch.from_numpy(held["odds"]).float(), share=float(held["share"]))


def items(args) -> list[dict]:
    "What both transcribers show of all mixtures, made where it is not there."
    made, found = [], []
    def make(index, which):
        if not made:
            bank = NoteBank.load(args.bank)
            made.extend([PieceBank.load(args.pieces).split()["train"], expressive_player(bank),
                         {name: bank.of(name) for name in bank.instruments},
                         [FrameModel.from_pretrained(args.models / "trio-notes"),
                          transcriber_of(Separator.from_pretrained(args.models / "trio-informed").at(22050))]])
        pieces, play, instances, models = made
        return out_of_set.mixture(pieces, play, instances, args.seed, index, PERFORMED_AUGMENTATION,
                                  KINDS), models[which]
    for index in range(args.items):
        for which in range(1 if index < args.own else 2):
            found.append(kept(Path(args.cache) / f"{index:05d}_{which}.npz", partial(make, index, which))
                         | dict(which=which))
    return [item for item in found if len(item["places"]) >= LEAST]


def held_out(args) -> list[dict]:
    "What `trio-notes` shows of clarinets and others in mixtures of validation pieces through the held-out soundfont."
    programs = {name: [str(program) for program in about.programs] for name, about in INSTRUMENTS.items()}
    pieces, model = PieceBank.load(args.pieces).split()["valid"], FrameModel.from_pretrained(args.models / "trio-notes")
    play = soundfont_player(soundfonts()[HELD_OUT_SOUNDFONT], out_of_set.RATE)
    def make(index):
        return out_of_set.mixture(pieces, play, programs, 31, index, out_of_set.HELD_OUT_AUGMENTATION), model
    found = [kept(Path(args.cache) / f"held_out/{index:05d}.npz", partial(make, index)) for index in range(200)]
    return [item for item in found if item["kind"] in ("clarinet", "other") and len(item["places"])]


# ---- training

def batch_of(some: list[dict], most: int | None = None, rng=None):
    "Places, weights, odds and whose they are; of each mixture not more than so many places, by chance."
    places, weights, whose = [], [], []
    for number, item in enumerate(some):
        kept = slice(None)
        if most and len(item["places"]) > most:
            kept = torch.from_numpy(rng.choice(len(item["places"]), most, replace=False))
        places.append(item["places"][kept])
        weights.append(item["weights"][kept])
        whose.append(torch.full((len(weights[-1]),), number))
    return torch.cat(places), torch.cat(weights), torch.stack([item["odds"] for item in some]), torch.cat(whose)


def balanced_by_pitch(data: list[dict]) -> np.ndarray:  # -> float32 (mixtures,), mean about 1
    "Weights with which among mixtures of like mean pitch half are clarinets: height alone is to say nothing."
    pitch = np.array([float((item["weights"] * item["places"][:, PITCH]).sum() / item["weights"].sum())
                      for item in data])
    bands, plays = np.digitize(44 * (pitch + 1), PITCH_BANDS), np.array([item["kind"] == "clarinet" for item in data])
    weights = np.zeros(len(data), np.float32)
    for band in np.unique(bands):
        for kind in (False, True):
            of = (bands == band) & (plays == kind)
            weights[of] = (bands == band).sum() / (2 * max(of.sum(), FEWEST))
    return weights


def train(data: list[dict], seed: int, *, dropout, learning_rate, decay, noise, batch, epochs, most, averaging, ramp,
          warmup, without_odds) -> tuple[InstrumentVerifier, list[float]]:
    "A network with averaged weights, for places as they are, and the mean loss of each epoch."
    torch.manual_seed(seed)
    rng, every = np.random.default_rng(seed), torch.cat([item["places"] for item in data])
    mean, scale = every.mean(0), every.std(0) + 0.05
    del every
    network = InstrumentVerifier(len(mean), dropout=dropout)
    balance, count = balanced_by_pitch(data), len(data) // batch
    def batches(): return rng.permutation(len(data))[:count * batch].reshape(count, batch)
    def loss(some):
        places, weights, odds, whose = batch_of([data[k] for k in some], most, rng)
        places = (places - mean) / scale
        places = places + noise * torch.randn_like(places)
        odds = odds * (torch.rand(len(odds), 1) >= without_odds)
        plays = torch.tensor([float(data[k]["kind"] == "clarinet") for k in some])
        return nn.functional.binary_cross_entropy_with_logits(
            network(places, weights, odds, whose), 0.02 + 0.96 * plays, weight=torch.from_numpy(balance[some]))
    losses = train_averaged(network, batches, loss, learning_rate=learning_rate, passes=epochs, decay=decay,
                            rise=epochs * count / warmup, clip=float("inf"), averaging=averaging, ramp=ramp)
    with torch.no_grad():                                # the first layer takes the places as they are
        network.input.weight /= scale
        network.input.bias -= network.input.weight @ mean
    return network, losses


@torch.inference_mode()
def log_odds(network: InstrumentVerifier, data: list[dict]) -> np.ndarray:
    return np.array([float(network(*batch_of([item]))) for item in data])


def keys_of(item: dict) -> float:
    "How many keys are played, by its places."
    pitch = (44 * (item["places"][:, PITCH] + 1)).round().long()
    return distinct_keys(torch.zeros(PITCHES).index_add(0, pitch, item["weights"]))


def left_out(data: list[dict]) -> list[dict]:
    """Mixtures of each group, as `trio-notes` shows them, asked by networks that were trained without it: counts, of
    each seed where it matters."""
    table = []
    for group in sorted({item["group"] for item in data if item["kind"] == "clarinet"}):
        asked = [item for item in data if item["group"] == group and item["which"] == 0]
        rest = [item for item in data if item["group"] != group]
        kinds, flute, taken, least, least_of_separator = (np.array([of(item) for item in asked]) for of in (
            lambda item: item["kind"], lambda item: item["family"] == "flute", lambda item: item["share"] > 0.5,
            lambda item: least_log_odds(keys_of(item)),
            lambda item: least_log_odds(keys_of(item), margin=NoteInformedRNN.rejection_margin)))
        clarinet, other, rows = kinds == "clarinet", kinds == "other", []
        for seed in SEEDS:
            found = log_odds(train(rest, seed, **CHOICES)[0], asked)
            rows.append({"AUC": float(roc_auc_score(clarinet, found)) if clarinet.min() < clarinet.max() else None,
                         "clarinets lost": int((clarinet & (found < least)).sum()),
                         "clarinets lost, separator": int((clarinet & (found < least_of_separator)).sum()),
                         "still taken for one": int((other & taken & (found >= least)).sum()),
                         "flutes still": int((other & flute & taken & (found >= least)).sum())})
        table.append({"group": group, "clarinets": int(clarinet.sum()), "others": int(other.sum()),
                      "taken for a clarinet": int((other & taken).sum()), "flutes": int((other & flute).sum()),
                      "flutes taken": int((other & flute & taken).sum())}
                     | {key: [row[key] for row in rows] for key in rows[0]})
        print(table[-1], flush=True)
    return table


def learning_curve(args, data: list[dict]) -> list[dict]:
    "AUC on mixtures through the held-out soundfont, of more and more to learn from, and with less noise; each seed."
    asked, table = held_out(args), []
    plays = [item["kind"] == "clarinet" for item in asked]
    for count, noise in *((count, CHOICES["noise"]) for count in (700, 1400, 2800, len(data))), (len(data), 0.6):
        found = [log_odds(train(data[:count], seed, **CHOICES | dict(noise=noise))[0], asked) for seed in SEEDS]
        table.append(dict(mixtures=count, noise=noise, asked=len(asked),
                          AUC=[float(roc_auc_score(plays, each)) for each in found]))
        print(table[-1], flush=True)
    return table


def card(model: Path, mixtures: int) -> dict:
    "What is written in the model about its training, and about this one."
    return read_json(model / "config.json")["card"] | dict(
        verifier="a network of 23 thousand weights asks whether a clarinet plays at all; trained on "
                 f"{mixtures} mixtures of 8 s with a clarinet, another melody instrument or neither, the transcriber "
                 "frozen (nbs/results/verifier_run.json)")


def main():
    parser = training_arguments(__doc__, cache="data/verifier", output="runs/verifier")
    parser.add_argument("--items", type=int, default=5460, help="mixtures")
    parser.add_argument("--models", type=Path, default=WEIGHTS, help="folder with trio-notes and trio-informed")
    parser.add_argument("--log", default=LOGS / "verifier_run.json", help="where the log goes; '': nowhere")
    parser.add_argument("--own", type=int, default=5000, help="of so many of them only what trio-notes shows is kept")
    parser.set_defaults(seed=101)
    args = parser.parse_args()
    torch.set_num_threads(1)
    register_others()
    data = items(args)
    network, losses = train(data, 0, **CHOICES)
    weights = network.state_dict()
    transcriber = FrameModel.from_pretrained(args.models / "trio-notes")
    model = FrameModel(replace(transcriber.config, options=transcriber.config.options | dict(verifier=True)))
    model.load_state_dict(transcriber.state_dict() | {f"network.verifier.{k}": v for k, v in weights.items()})
    model.save_pretrained(Path(args.output) / "trio-notes", card=card(args.models / "trio-notes", args.items))
    before = Separator.from_pretrained(args.models / "trio-informed")
    options = before.config.options | dict(notes=before.config.options["notes"] | dict(verifier=True))
    separator = Separator(replace(before.config, options=options))
    separator.load_state_dict(before.state_dict() | {f"network.notes.verifier.{k}": v for k, v in weights.items()})
    separator.save_pretrained(Path(args.output) / "trio-informed", card=card(args.models / "trio-informed", args.items))
    if not args.log: return
    write_json(args.log, dict(
        command="OMP_NUM_THREADS=1 python benchmarks/verifier.py --bank BANK --pieces PIECES --models MODELS",
        mixtures=args.items, shown=len(data), seconds=out_of_set.SECONDS, seed=args.seed, kinds=KINDS,
        weights=sum(p.numel() for p in network.parameters()), torch=torch.__version__, **CHOICES,
        losses=[round(value, 4) for value in losses], seeds=SEEDS, left_out=left_out(data),
        learning_curve=learning_curve(args, data)))


if __name__ == "__main__":
    main()
