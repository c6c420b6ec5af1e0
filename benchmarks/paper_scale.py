"""The paper's network and its repairs, one by one, on hours of different mixtures: is it the data that was missing?

    python benchmarks/paper_scale.py --bank train_bank.safetensors --pieces pieces.npz --work scale

`paper_unet.py` trains on 160 mixtures, the paper trained on 40 hours. Here no mixture comes twice. Each row keeps the
change of the row before it; there is no gradient clipping anywhere, and the learning rate stays at the paper's 1e-3.
At 0.1, 0.3, 1, 3 and 10 hours each network is scored on mixtures of held-out pieces, played exactly on a soundfont
seen in training and on a held-out one, and it is measured how much of its output each height of the U takes part in
(`depth`, as in `paper_unet.py`; `depth_untrained` is before training).

Mixtures are rendered as they are needed, once for all rows, into `--work` (16 bits, 0.64 GB an hour, mapped into
memory); checkpoints are there as well, every two minutes. The script may be killed at any time: the same command goes
on. Seed 0 comes first, all rows up to 0.1 h, then all up to 0.3 h, and so on, so that the table is of use before it is
full. Results go to nbs/results/paper_scale.json and benchmarks/results/paper_scale.md; `--table` only writes the table.
"""
import json
import time
from pathlib import Path

import numpy as np
import torch

from instsep import __version__
from instsep.core import atomic_path
from instsep.metrics import format_table, si_sdr, summarise
from instsep.mixtures import DRY, Equaliser, Gain, Mixtures, Room, WhiteNoise, balanced, bank_player
from instsep.music.pieces import PieceBank
from instsep.separator import ConvUNet
from instsep.sound.notebank import NoteBank
from instsep.sound.spectral import istft, stft
from common import (LOGS, RESULTS, arguments, exact_mixtures, processor, read_json, test_soundfonts, write_json,
                    write_text)
from paper_unet import (BATCH, HOP, LEARNING_RATE, N_FFT, SAMPLE_RATE, SECONDS, STEMS, Trial, baselines, depth,
                        loss_of, run)

MARKS = 0.1, 0.3, 1.0, 3.0, 10.0                             # hours of mixtures at which a network is scored
BLOCK = 144                                                  # items in 0.1 h: rendered together, shuffled together
FULL_SCALE = 16384                                           # a stem alone may be louder than the mixture
SAVE_EVERY = 120.0                                           # seconds
SETS = "seen soundfont", "held-out soundfont"
WEIGHTS = dict(FluidR3_GM=1.5, MuseScore_General_Full=1.5)   # of the others: 1
ROWS = [
    Trial("paper", "raw magnitudes in and out, squared error, PyTorch's initial weights"),
    Trial("+ Kaiming initialisation", "initial weights that keep the signal's variance from layer to layer"),
    Trial("+ normalisation", "group normalisation between each convolution and its ReLU", norm=True),
    Trial("+ log input", "divided by the local RMS, log(1 + 100 m), going in and as the target", norm=True,
          scale="log"),
    Trial("+ mask", "the channels become masks by a softmax", norm=True, scale="log", output="mask"),
    Trial("+ complex loss", "decibels and L1 distance of complex spectrograms", norm=True, scale="log", output="mask",
          loss="complex"),
]


# ---- networks

@torch.no_grad()
def kaiming(network):
    "He and others 2015: variance 2 / inputs in front of a ReLU, 1 / inputs where there is none; no bias."
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0, ((1 if layer is network.last else 2) / fan_in) ** 0.5)
        elif isinstance(layer, torch.nn.ConvTranspose2d):
            layer.weight.normal_(0, layer.in_channels ** -0.5)   # kernel and stride are equal: one tap an output
        else: continue
        layer.bias.zero_()


def build(row, seed):
    torch.manual_seed(seed)
    network = ConvUNet(len(STEMS), norm=row.norm).to(memory_format=torch.channels_last)
    if row.name != "paper": kaiming(network)
    return network


def in_bf16(network):
    "Products in 16 bits, weights, loss and optimizer in 32."
    def forward(x):
        with torch.autocast("cpu", torch.bfloat16): y = network(x)
        return y.float()
    return forward


# ---- data

class Cache:
    "Mixtures of the training pieces, rendered in order, `BLOCK` at a time, into one file that is mapped into memory."
    def __init__(self, folder, mixtures, hours):
        self.mixtures, self.about = mixtures, folder / "items.json"
        samples, count = int(SECONDS * SAMPLE_RATE), BLOCK * round(10 * hours)
        self.ready = read_json(self.about, dict(ready=0))["ready"]
        path = folder / "items.i16"
        shape = (max(count, self.ready), len(STEMS), samples)
        if not path.exists(): path.touch()
        size = 2 * int(np.prod(shape))
        if path.stat().st_size < size: path.open("r+b").truncate(size)     # sparse: takes no room before it is written
        self.items = np.memmap(path, np.int16, "r+", shape=shape)          # (items, stems, samples)

    def fill(self, count):
        while self.ready < count:
            for i in range(self.ready, self.ready + BLOCK):
                stems = self.mixtures()[i]["stems"].numpy() * FULL_SCALE
                self.items[i] = np.clip(np.rint(stems), -32768, 32767)
            self.items.flush()
            self.ready += BLOCK
            write_json(self.about, dict(ready=self.ready))

    def batch(self, seed, step):
        "No item twice; the order within 0.1 h depends on the seed."
        block, first = divmod(step * BATCH, BLOCK)
        order = np.random.default_rng([seed, block]).permutation(BLOCK)[first:first + BATCH]
        self.fill((block + 1) * BLOCK)
        return torch.from_numpy(self.items[block * BLOCK + np.sort(order)].astype(np.float32) / FULL_SCALE)


def training_mixtures(bank_path, pieces):
    "A function that gives the data set, which is made when it is first asked for: its bank is large."
    made = []
    def mixtures():
        if not made:
            bank = NoteBank.load(bank_path)
            made.append(Mixtures(pieces, bank_player(bank), balanced(bank, WEIGHTS), sample_rate=SAMPLE_RATE,
                                 seconds=SECONDS, seed=0, absent=0.2, other=0.15,
                                 augmentation=(Equaliser(0.5, 3.0), Gain(), Room(0.2), WhiteNoise())))
        return made[0]
    return mixtures


def test_sets(folder, pieces, count):
    """Stems of the test mixtures, label -> (mixtures, stems, samples), made once; one with less than two stems is left
    out."""
    path = folder / "test.npz"
    if not path.exists():
        made = {}
        for label, font in test_soundfonts():
            data = exact_mixtures(font, pieces, sample_rate=SAMPLE_RATE, seconds=4.0, augmentation=DRY)
            stems = np.stack([data[i]["stems"].numpy() for i in range(count)])
            made[label] = stems[stems.any(-1).sum(1) >= 2]
        with atomic_path(path) as temporary: np.savez(temporary, **made)
    return {label: torch.from_numpy(stems) for label, stems in np.load(path).items()}


# ---- scores

def shown(sets):
    "The first mixture of all three instruments."
    return next(stems for stems in sets[SETS[0]] if stems[:3].any(-1).all()).sum(0)


def evaluate(network, row, sets):
    "n, mean and median SI-SDR improvement of each set, with the mixture's phase."
    out = {}
    for label, items in sets.items():
        rows = []
        for stems in items:
            mixture = stems.sum(0)
            with torch.inference_mode():
                spec = stft(mixture, N_FFT, HOP)[None]                                  # (1, bins, frames)
                estimate = run(in_bf16(network), row, spec)[1][0] * torch.exp(1j * spec.angle())
                found = istft(estimate, N_FFT, HOP, mixture.shape[-1])                  # (stems, samples)
            rows += [dict(stem=STEMS[k], si_sdr_improvement=si_sdr(found[k], stems[k]) - si_sdr(mixture, stems[k]))
                     for k in range(3) if stems[k].any()]
        out[label] = summarise(rows)
    return out


# ---- training

class Run:
    "One row with one seed: weights, optimizer, the step it is at, and what was seen on the way."
    def __init__(self, folder, row, seed):
        self.row, self.seed, self.network = row, seed, build(row, seed)
        # the same network, compiled: where it normalises, half the time
        self.trained = torch.compile(self.network, dynamic=False) if row.norm else self.network
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        self.path = folder / f"{row.name.replace('+ ', '').replace(' ', '_')}_{seed}.pt"
        self.state = dict(step=0, cpu_seconds=0.0, losses=[], marks={})
        if self.path.exists():
            kept = torch.load(self.path, weights_only=True)
            self.network.load_state_dict(kept["network"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.state = kept["state"]
        self.saved = time.monotonic()

    def save(self):
        with atomic_path(self.path) as temporary:
            torch.save(dict(network=self.network.state_dict(), optimizer=self.optimizer.state_dict(), state=self.state),
                       temporary)
        self.saved = time.monotonic()

    def train(self, hours, data, sets):
        "Up to this many hours of mixtures; True where there was anything to do."
        if str(hours) in self.state["marks"]: return False
        end = round(hours * 3600 / SECONDS / BATCH)
        while self.state["step"] < end:
            stems = data.batch(self.seed, self.state["step"])          # (batch, stems, samples)
            begun = time.process_time()
            loss = loss_of(in_bf16(self.trained), self.row, stems)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.state["step"] += 1
            self.state["losses"].append(loss.item())
            self.state["cpu_seconds"] += time.process_time() - begun
            if time.monotonic() - self.saved > SAVE_EVERY: self.save()
        recent = self.state["losses"][-100:]
        self.state["marks"][str(hours)] = dict(
            steps=end, cpu_seconds=round(self.state["cpu_seconds"], 1), recent_loss=float(np.mean(recent)),
            depth=depth(self.network, self.row, shown(sets)), scores=evaluate(self.network, self.row, sets))
        self.save()
        return True

    def log(self):
        kept = np.array(self.state["losses"], float)
        kept = kept[:len(kept) // 72 * 72].reshape(-1, 72).mean(1)
        return dict(parameters=sum(p.numel() for p in self.network.parameters()), marks=self.state["marks"],
                    loss_every_72_steps=[float(f"{value:.4g}") for value in kept])


# ---- tables

def total(rows, measure="si_sdr_improvement"):
    return next(row for row in rows if (row["stem"], row["measure"]) == ("all", measure))


def table(log, label):
    "A row for each network, mean / median at each mark; over seeds the mean of both, with the number of seeds."
    out = []
    for name, seeds in log["rows"].items():
        line = {"network": name}
        for mark in MARKS:
            found = [total(run["marks"][str(mark)]["scores"][label]) for run in seeds.values()
                     if str(mark) in run["marks"]]
            line[f"{mark:g} h"] = (f"{np.mean([f['mean'] for f in found]):+.1f} / "
                                   f"{np.mean([f['median'] for f in found]):+.1f} ({len(found)})" if found else "")
        out.append(line)
    return format_table(out)


def text(log):
    parts = []
    for label in SETS:
        base = log["baselines"][label]
        parts.append(f"## {label.capitalize()}, n = {total(base)['n']}\n\nMixture: SI-SDR "
                     f"{total(base, 'input_si_sdr')['mean']:.1f} dB, improvement 0 by definition. Oracle (ideal ratio "
                     f"mask): {total(base)['mean']:+.1f} / {total(base)['median']:+.1f} dB.\n\n{table(log, label)}\n")
    return f"""# The paper's network at the paper's scale

`{log["command"]}` on {log["hardware"]}, one thread, products in bfloat16; torch {log["versions"]["torch"]}.

SI-SDR improvement in dB over the mixture, mean / median over the stems of {log["test_mixtures"]} mixtures of held-out
pieces; in brackets the seeds it is averaged over. No mixture is seen twice; batches of {BATCH} x {SECONDS} s, Adam at
{LEARNING_RATE}, no clipping. Each row keeps the change of the row above. An empty cell has not been run yet: the same
command goes on.

""" + "\n".join(parts)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--bank", help="note bank to train on, 22050 Hz")
    parser.add_argument("--pieces", help="a piece bank")
    parser.add_argument("--work", default="scale", help="folder for mixtures and checkpoints")
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[row.name for row in ROWS])
    parser.add_argument("--count", type=int, default=32, help="mixtures in each test set")
    parser.add_argument("--out", default=str(LOGS), help="where paper_scale.json goes")
    parser.add_argument("--table", action="store_true", help="only write the table")
    args = parser.parse_args()
    path = Path(args.out) / "paper_scale.json"
    if args.table: return write_text(RESULTS / "paper_scale.md", text(json.loads(path.read_text())))
    torch.set_num_threads(1)
    folder = Path(args.work)
    folder.mkdir(parents=True, exist_ok=True)
    pieces = PieceBank.load(args.pieces).split()
    data = Cache(folder, training_mixtures(args.bank, pieces["train"]), args.hours)
    sets = test_sets(folder, pieces["test"], args.count)
    log = read_json(path, dict(rows={}))
    log |= dict(command="python benchmarks/paper_scale.py", marks=MARKS, batch=BATCH, learning_rate=LEARNING_RATE,
                seconds=SECONDS, sample_rate=SAMPLE_RATE, n_fft=N_FFT, hop=HOP, stems=STEMS,
                changes={row.name: row.change for row in ROWS}, test_mixtures=args.count, hardware=processor(),
                versions=dict(torch=torch.__version__, instsep=__version__))
    if "baselines" not in log: log["baselines"] = baselines(sets)
    log["depth_untrained"] = {row.name: depth(build(row, 0), row, shown(sets)) for row in ROWS[:3]}
    for seed in args.seeds:
        for hours in MARKS:
            for row in ROWS:
                if row.name not in args.only or hours > args.hours: continue
                run_ = Run(folder, row, seed)
                trained = run_.train(hours, data, sets)
                log["rows"] = {r.name: log["rows"].get(r.name, {}) for r in ROWS}
                log["rows"][row.name][str(seed)] = run_.log()
                write_json(path, log)
                if trained: print(f"seed {seed}, {row.name}, {hours:g} h: " + ", ".join(
                    f"{label} {total(rows)['mean']:+.2f} / {total(rows)['median']:+.2f}"
                    for label, rows in run_.state["marks"][str(hours)]["scores"].items()), flush=True)
    write_text(RESULTS / "paper_scale.md", text(log))


if __name__ == "__main__": main()
