"""The paper's network and its repairs, one by one, on hours of different mixtures: is it the data that was missing?

    python benchmarks/paper_scale.py --bank train_bank.safetensors --pieces pieces.npz --work scale

`paper_unet.py` trains on 160 mixtures, the paper trained on 40 hours. Here no mixture comes twice. Each row keeps the
change of the row before it; there is no gradient clipping anywhere, and the learning rate stays at the paper's 1e-3.
At 0.1, 0.3, 1, 3 and 10 hours each network is scored on mixtures of held-out pieces, played exactly on a soundfont
seen in training and on a held-out one, and it is measured how much of its output each height of the U takes part in
(`depth`, as in `paper_unet.py`; `depth_untrained` is before training).

Mixtures are rendered as they are needed, once for all rows, into `--work` (16 bits, 0.64 GB an hour, mapped into
memory); checkpoints are there as well, every two minutes. The script may be killed at any time: the same command goes
on. A row with a seed is trained to the end before the next one begins, and what the log has already is not trained
again; several processes may share the seeds or rows among them (`--seeds`, `--only`). Ten hours of the first row are
17 minutes of a core for each seed; with a normalisation an hour takes half as long again. Results go to
nbs/results/paper_scale_core.json and benchmarks/results/paper_scale_core.md (with another `--out`, both there);
`--table` only writes the table.

On a GPU all rows and seeds go in lockstep, each on a stream of its own, with the items and initial weights of the
processor's runs, while `--workers` processes render:

    python benchmarks/paper_scale.py --device cuda --hours 40 --bank train_bank.safetensors --pieces pieces.npz \\
        --work scale --out results --deadline $(($(date +%s) + 420))

It keeps no checkpoints: at each mark it writes paper_scale.json and the seed 0 networks (16 bits) to `--out`, and it
stops before `--deadline`. `--lockstep` takes the same way on a processor, `--marks` other hours: for tests.

nbs/results/paper_scale.json was made that way, beside other trainings, until its deadline at 7.1 hours; its networks
were compiled, by an option `--compile` that is no more. Its note bank is that of `benchmarks/gpu_run.py bank` without
the instruments that the registry lacks and without electric guitars; `--note` is where such things go.
nbs/results/paper_scale_core.json is of a core; paper_scale_one_hour.json is an earlier study of a core, up to an hour,
on a smaller bank.
"""
import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from instsep import __version__
from instsep.core import atomic_path
from instsep.metrics import format_table, si_sdr, summarise
from instsep.mixtures import DRY, Equaliser, Gain, Mixtures, Room, WhiteNoise, balanced, bank_player
from instsep.music.pieces import PieceBank
from instsep.separator import ConvUNet
from instsep.sound.notebank import NoteBank
from instsep.sound.spectral import istft, stft
from common import (LOGS, RESULTS, alone, arguments, exact_mixtures, processor, read_json, test_soundfonts, write_json,
                    write_text)
from paper_unet import (BATCH, HOP, LEARNING_RATE, N_FFT, SAMPLE_RATE, SECONDS, STEMS, Trial, baselines, depth,
                        loss_of, run)

MARKS = 0.1, 0.3, 1.0, 3.0, 10.0, 40.0                       # hours of mixtures at which a network is scored
BLOCK = 144                                                  # items in 0.1 h: rendered together, shuffled together
FULL_SCALE = 16384                                           # a stem alone may be louder than the mixture
SAVE_EVERY = 120.0                                           # seconds
WARM_UP = 3                                                  # steps before a CUDA graph is recorded
SETS = "seen soundfont", "held-out soundfont"
COMMAND = "python benchmarks/paper_scale.py --bank train_bank.safetensors --pieces pieces.npz --work scale"
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
        # in a CUDA graph weights must be cast at each replay, not once
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=x.device.type == "cpu"): y = network(x)
        return y.float()
    return forward


# ---- data

def sixteen_bits(stems):
    return np.clip(np.rint(stems.numpy() * FULL_SCALE), -32768, 32767)


def item_order(seed, block):
    "Items of each batch of 0.1 h, (steps, batch): no item twice, an order for each seed."
    order = np.random.default_rng([seed, block]).permutation(BLOCK).reshape(-1, BATCH)
    return block * BLOCK + np.sort(order)


def steps_in(hours):
    return round(hours * 3600 / SECONDS / BATCH)


class Cache:
    "Mixtures of the training pieces, rendered in order, `BLOCK` at a time, into one file that is mapped into memory."
    def __init__(self, folder, mixtures, hours):
        self.mixtures, self.folder, self.about = mixtures, folder, folder / "items.json"
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
            with alone(self.folder):                                       # else two processes render the same
                self.ready = read_json(self.about, dict(ready=0))["ready"]
                if self.ready >= count: return
                for i in range(self.ready, self.ready + BLOCK):
                    self.items[i] = sixteen_bits(self.mixtures()[i]["stems"])
                self.items.flush()
                self.ready += BLOCK
                write_json(self.about, dict(ready=self.ready))

    def batch(self, seed, step):
        block, within = divmod(step, BLOCK // BATCH)
        self.fill((block + 1) * BLOCK)
        return torch.from_numpy(self.items[item_order(seed, block)[within]].astype(np.float32) / FULL_SCALE)


class SharedCache(Cache):
    "The same items in the same file, rendered by worker processes, item by item in turn."
    def start(self, workers):
        self.mixtures()                                      # the bank, once for all of them
        context = multiprocessing.get_context("fork")        # before CUDA is touched
        self.first, self.done = self.ready, multiprocessing.RawArray("q", workers)
        self.workers = [context.Process(target=self.work, args=(k,), daemon=True) for k in range(workers)]
        for worker in self.workers: worker.start()

    def work(self, k):
        torch.set_num_threads(1)
        parent, mixtures = multiprocessing.parent_process(), self.mixtures()
        for i in range(self.first + k, len(self.items), len(self.done)):
            if not parent.is_alive(): return
            self.items[i] = sixteen_bits(mixtures[i]["stems"])
            self.done[k] += 1

    def look(self):
        "How many items are ready without a gap, in whole blocks."
        upto = min(self.first + k + len(self.done) * done for k, done in enumerate(self.done))
        self.ready = min(upto, len(self.items)) // BLOCK * BLOCK
        return self.ready

    def wait(self, count, until):
        "True as soon as so many items are ready; False where a worker is lost or time is up."
        while self.look() < count:
            lost = [worker.exitcode for worker in self.workers if worker.exitcode]
            if lost: print(f"a worker that renders ended with {lost[0]}", flush=True)
            if lost or time.time() > until: return False
            time.sleep(0.02)
        return True

    def stop(self):
        for worker in self.workers: worker.terminate()
        for worker in self.workers: worker.join()
        write_json(self.about, dict(ready=self.look()))


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


def separate(network, row, mixtures):
    "(batch, samples) -> (batch, stems, samples), with the mixture's phase."
    with torch.inference_mode():
        spec = stft(mixtures, N_FFT, HOP)                                               # (batch, bins, frames)
        estimate = run(in_bf16(network), row, spec)[1] * torch.exp(1j * spec.angle())[:, None]
        return istft(estimate, N_FFT, HOP, mixtures.shape[-1])


def evaluate(network, row, sets, batch=1):
    "n, mean and median SI-SDR improvement of each set."
    out, device = {}, next(network.parameters()).device
    for label, items in sets.items():
        found = torch.cat([separate(network, row, stems.sum(1).to(device)).cpu() for stems in items.split(batch)])
        out[label] = summarise([
            dict(stem=STEMS[k], si_sdr_improvement=si_sdr(estimates[k], stems[k]) - si_sdr(stems.sum(0), stems[k]))
            for estimates, stems in zip(found, items) for k in range(3) if stems[k].any()])
    return out


def every_72(losses):
    means = np.asarray(losses[:len(losses) // 72 * 72], float).reshape(-1, 72).mean(1)
    return [float(f"{value:.4g}") for value in means]


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
        end = steps_in(hours)
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
        return dict(parameters=sum(p.numel() for p in self.network.parameters()), marks=self.state["marks"],
                    loss_every_72_steps=every_72(self.state["losses"]))


# ---- training in lockstep, on a GPU

class LockstepRun:
    """One row with one seed on a device. Which items come next, and where their loss goes, is known there, so that a
    step is nothing but the replay of a CUDA graph."""
    def __init__(self, row, seed, pool, steps):
        self.row, self.seed, self.pool, self.graph, self.stream, self.marks = row, seed, pool, None, None, {}
        self.network = build(row, seed).to(pool.device)
        on_gpu = dict(fused=True, capturable=True) if pool.is_cuda else {}
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE, **on_gpu)
        blocks = range(-(-steps * BATCH // BLOCK))
        order = np.concatenate([item_order(seed, block) for block in blocks])
        self.order = torch.from_numpy(order).to(pool.device)                       # (steps, batch)
        self.losses = torch.zeros(len(order), device=pool.device)
        self.at = torch.zeros(1, dtype=torch.long, device=pool.device)             # the step

    def step(self):
        items = self.order.index_select(0, self.at)[0]
        stems = self.pool.index_select(0, items).float() / FULL_SCALE              # (batch, stems, samples)
        loss = loss_of(in_bf16(self.network), self.row, stems)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.losses.index_copy_(0, self.at, loss.detach()[None])
        self.at += 1

    def on_stream(self):
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def warm_up(self):
        "The first steps as they are, on a stream of its own."
        if self.pool.is_cuda: self.stream = torch.cuda.Stream()
        with self.on_stream():
            for _ in range(WARM_UP): self.step()

    def capture(self):
        "A step that is only recorded."
        torch.cuda.synchronize()
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream): self.step()

    def advance(self):
        with self.on_stream():
            self.graph.replay() if self.graph else self.step()

    def score(self, hours, seconds, sets):
        steps, mixture = int(self.at), shown(sets).to(self.pool.device)
        self.marks[str(hours)] = dict(
            steps=steps, seconds=round(seconds, 1), recent_loss=float(self.losses[max(steps - 100, 0):steps].mean()),
            depth=depth(self.network, self.row, mixture), scores=evaluate(self.network, self.row, sets, 16))

    def log(self):
        return dict(parameters=sum(p.numel() for p in self.network.parameters()), marks=self.marks,
                    loss_every_72_steps=every_72(self.losses[:int(self.at)].cpu().numpy()))


class Lockstep:
    """All runs, step by step together; `seconds` of a mark is a run's share of the wall time, without scoring."""
    def __init__(self, args, data, sets, log, path):
        self.data, self.sets, self.log, self.path, self.until = data, sets, log, path, args.deadline
        self.marks = {steps_in(hours): hours for hours in args.marks if hours <= args.hours}    # step -> hours
        self.end = max(self.marks)
        self.pool = torch.empty(data.items.shape, dtype=torch.int16, device=args.device)
        self.on_gpu, self.copied, self.at, self.scoring, self.rate = self.pool.is_cuda, 0, 0, 0.0, 0.0
        self.runs = [LockstepRun(row, seed, self.pool, self.end) for seed in args.seeds for row in ROWS
                     if row.name in args.only]
        self.share = 0.0                     # of the wall time, for each run

    def synchronize(self):
        if self.on_gpu: torch.cuda.synchronize()

    def feed(self, step, more=4):
        "The items up to this step, and some blocks more that are ready, onto the device; False: there is no time."
        needed = -(-step * BATCH // BLOCK) * BLOCK
        if not self.data.wait(needed, self.until): return False
        upto = min(self.data.look(), max(needed, self.copied) + more * BLOCK)
        with torch.cuda.stream(self.copying) if self.on_gpu else nullcontext():
            for i in range(self.copied, upto, BLOCK):
                self.pool[i:i + BLOCK].copy_(torch.from_numpy(np.asarray(self.data.items[i:i + BLOCK])))
        self.copied = upto
        return True

    def prepare(self):
        "The first items, and a graph for each run."
        if self.on_gpu: self.copying = torch.cuda.Stream()
        self.begun = self.printed = time.monotonic()
        if not self.feed(1): return False
        self.synchronize()
        torch.backends.cudnn.benchmark = True
        for run_ in self.runs:
            run_.warm_up()
            if self.on_gpu: run_.capture()
        torch.backends.cudnn.benchmark, self.at = False, WARM_UP
        self.synchronize()
        memory = f", {torch.cuda.max_memory_allocated() / 1e9:.0f} GB" if self.on_gpu else ""
        print(f"{len(self.runs)} runs, {time.monotonic() - self.begun:.0f} s{memory}", flush=True)
        return True

    def spans(self):
        "(first, last) step of at most 0.1 h, each within one block and up to one mark."
        edges = sorted({*range(0, self.end, BLOCK // BATCH), *self.marks})
        return [(max(a, self.at), b) for a, b in zip(edges, edges[1:]) if b > self.at]

    def train(self):
        if not self.prepare(): return
        before = []
        for first, last in self.spans():
            scoring = self.scoring if last in self.marks else 0.0
            if time.time() + 3 * self.rate * (last - first) + scoring > self.until or not self.feed(last):
                self.tell()
                break
            begun = time.monotonic()
            for _ in range(first, last):
                for run_ in self.runs: run_.advance()
            for event in before: event.synchronize()         # no more than two spans ahead of the device
            before = [run_.stream.record_event() for run_ in self.runs if run_.stream]
            self.at, self.rate = last, (time.monotonic() - begun) / (last - first)
            if last in self.marks: before = self.mark(self.marks[last])
            if time.monotonic() - self.printed > 15: self.tell()
        self.synchronize()
        self.write()

    def tell(self):
        self.printed = time.monotonic()
        print(f"round {self.at}, {1000 * self.rate:.1f} ms a round, {self.at * BATCH * SECONDS / 3600:.2f} h "
              f"of {self.data.look() * SECONDS / 3600:.2f} h rendered, {len(self.runs)} runs, "
              f"{self.until - time.time():.0f} s left", flush=True)

    def mark(self, hours):
        "Score all runs and write."
        self.synchronize()
        begun = time.monotonic()
        self.share += (begun - self.begun) / len(self.runs)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda run_: run_.score(hours, self.share, self.sets), self.runs))
        self.write()
        for run_ in self.runs: print(f"seed {run_.seed}, {run_.row.name}, {hours:g} h: " + ", ".join(
            f"{label} {total(rows)['mean']:+.2f} / {total(rows)['median']:+.2f}"
            for label, rows in run_.marks[str(hours)]["scores"].items()), flush=True)
        self.scoring = time.monotonic() - begun
        self.tell()
        self.begun = time.monotonic()
        return []

    def write(self):
        for row in ROWS: self.log["rows"][row.name] = {
            str(run_.seed): run_.log() for run_ in self.runs if run_.row is row}
        self.log["marks"] = reached(self.log)
        write_json(self.path, self.log)
        tensors = {f"{run_.row.name}/{name}": value.detach().cpu().half().contiguous() for run_ in self.runs
                   if run_.seed == 0 for name, value in run_.network.state_dict().items()}
        hours = {run_.row.name: f"{int(run_.at) * BATCH * SECONDS / 3600:g}" for run_ in self.runs if run_.seed == 0}
        with atomic_path(self.path.with_name("paper_scale_seed0.safetensors")) as temporary:
            save_file(tensors, temporary, dict(hours=json.dumps(hours)))


def train_together(args, path):
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")       # else streams share 8 queues
    folder = Path(args.work)
    pieces = PieceBank.load(args.pieces).split()
    data = SharedCache(folder, training_mixtures(args.bank, pieces["train"]), -(-10 * args.hours // 1) / 10)
    data.start(args.workers)
    torch.backends.cudnn.allow_tf32 = False
    try:
        sets = test_sets(folder, pieces["test"], args.count)
        hardware = torch.cuda.get_device_name() if args.device == "cuda" else processor()
        log = about(args, hardware) | dict(
            rows={}, command=f"{COMMAND} --device {args.device} --hours {args.hours:g} --workers {args.workers}",
            how=f"{len(args.seeds) * len(args.only)} runs at once, {args.workers} processes that render")
        log |= dict(baselines=baselines(sets), depth_untrained=untrained(sets, args.device))
        Lockstep(args, data, sets, log, path).train()
    finally: data.stop()


# ---- tables

def total(rows, measure="si_sdr_improvement"):
    return next(row for row in rows if (row["stem"], row["measure"]) == ("all", measure))


def reached(log):
    "The marks that any run has come to."
    return [mark for mark in MARKS if any(str(mark) in run["marks"] for seeds in log["rows"].values()
                                          for run in seeds.values())]


def table(log, label):
    "A row for each network, mean / median at each mark; over seeds the mean of both, with the number of seeds."
    out = []
    for name, seeds in log["rows"].items():
        line = {"network": name}
        for mark in reached(log):
            found = [total(run["marks"][str(mark)]["scores"][label]) for run in seeds.values()
                     if str(mark) in run["marks"]]
            line[f"{mark:g} h"] = (f"{np.mean([f['mean'] for f in found]):+.1f} / "
                                   f"{np.mean([f['median'] for f in found]):+.1f} ({len(found)})" if found else "")
        out.append(line)
    return format_table(out)


def each_seed(log):
    "At the last mark: mean improvement of each seed, and how much of its output the deepest level takes part in."
    mark = str(reached(log)[-1])
    runs = {name: [run["marks"][mark] for run in seeds.values() if mark in run["marks"]]
            for name, seeds in log["rows"].items()}
    return format_table([
        {"network": name}
        | {label: ", ".join(f"{total(at['scores'][label])['mean']:+.1f}" for at in each) for label in SETS}
        | {"deepest level": ", ".join(f"{at['depth'][-1]:.0e}" for at in each)} for name, each in runs.items() if each])


def text(log):
    parts, how = [], log.get("how", "one thread")
    note = f"\n{log['note']}\n" if "note" in log else ""
    runs = [run for seeds in log["rows"].values() for run in seeds.values()]
    missing = any(str(mark) not in run["marks"] for run in runs for mark in reached(log))
    left = " An empty cell has not been run yet: the same command goes on." if missing and "how" not in log else ""
    for label in SETS:
        base = log["baselines"][label]
        parts.append(f"## {label.capitalize()}, n = {total(base)['n']}\n\nMixture: SI-SDR "
                     f"{total(base, 'input_si_sdr')['mean']:.1f} dB, improvement 0 by definition. Oracle (ideal ratio "
                     f"mask): {total(base)['mean']:+.1f} / {total(base)['median']:+.1f} dB.\n\n{table(log, label)}\n")
    return f"""# The paper's network at the paper's scale

`{log["command"]}` on {log["hardware"]}, {how}, products in bfloat16; torch {log["versions"]["torch"]}.

SI-SDR improvement in dB over the mixture, mean / median over the stems of {log["test_mixtures"]} mixtures of held-out
pieces; in brackets the seeds it is averaged over. No mixture is seen twice; batches of {BATCH} x {SECONDS} s, Adam at
{LEARNING_RATE}, no clipping. Each row keeps the change of the row above.{left}
{note}
""" + "\n".join(parts) + f"""
## Seed by seed, after {reached(log)[-1]:g} h

Mean improvement in dB, and the change of the output where the deepest level is silenced, as a share of it.

{each_seed(log)}
"""


def about(args, hardware):
    return dict(command=COMMAND, batch=BATCH, learning_rate=LEARNING_RATE, seconds=SECONDS, sample_rate=SAMPLE_RATE,
                n_fft=N_FFT, hop=HOP, stems=STEMS, test_mixtures=args.count, hardware=hardware,
                changes={row.name: row.change for row in ROWS},
                versions=dict(torch=torch.__version__, instsep=__version__),
                **(dict(note=args.note) if args.note else {}))


def untrained(sets, device="cpu"):
    return {row.name: depth(build(row, 0).to(device), row, shown(sets).to(device)) for row in ROWS[:3]}


def keep(path, first, run_):
    "Add a run to the log, to which another process may have added since."
    with alone(path.parent):
        log = read_json(path, dict(rows={})) | first
        log["rows"] = {row.name: log["rows"].get(row.name, {}) for row in ROWS}
        log["rows"][run_.row.name] = dict(sorted((log["rows"][run_.row.name] | {str(run_.seed): run_.log()}).items()))
        log["marks"] = reached(log)
        write_json(path, log)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--bank", help="note bank to train on, 22050 Hz")
    parser.add_argument("--pieces", help="a piece bank")
    parser.add_argument("--work", default="scale", help="folder for mixtures and checkpoints")
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[row.name for row in ROWS])
    parser.add_argument("--count", type=int, default=32, help="mixtures in each test set")
    parser.add_argument("--out", default=str(LOGS), help="where the log goes")
    parser.add_argument("--note", help="what else is to be said of this run, in the results")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=8, help="with --device cuda: processes that render")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="with --device cuda: seconds of the epoch")
    parser.add_argument("--lockstep", action="store_true", help="as with --device cuda, on a processor")
    parser.add_argument("--marks", type=float, nargs="*", default=MARKS, help="in lockstep: hours at which to score")
    args = parser.parse_args()
    together = args.device == "cuda" or args.lockstep
    name = "paper_scale" if together else "paper_scale_core"
    path = Path(args.out) / f"{name}.json"
    place = (RESULTS if Path(args.out).resolve() == LOGS.resolve() else path.parent) / f"{name}.md"
    if args.table: return write_text(place, text(read_json(path)))
    torch.set_num_threads(1)
    folder = Path(args.work)
    folder.mkdir(parents=True, exist_ok=True)
    if together: return train_together(args, path)
    pieces = PieceBank.load(args.pieces).split()
    data = Cache(folder, training_mixtures(args.bank, pieces["train"]), args.hours)
    with alone(folder): sets = test_sets(folder, pieces["test"], args.count)
    first = about(args, processor()) | dict(baselines=baselines(sets), depth_untrained=untrained(sets))
    last = str(max(mark for mark in MARKS if mark <= args.hours))
    for row in ROWS:
        for seed in args.seeds:
            known = read_json(path, dict(rows={}))["rows"].get(row.name, {}).get(str(seed), dict(marks={}))
            if row.name not in args.only or last in known["marks"]: continue
            run_ = Run(folder, row, seed)
            for hours in MARKS:
                if hours > args.hours or not run_.train(hours, data, sets): continue
                keep(path, first, run_)
                print(f"seed {seed}, {row.name}, {hours:g} h: " + ", ".join(
                    f"{label} {total(rows)['mean']:+.2f} / {total(rows)['median']:+.2f}"
                    for label, rows in run_.state["marks"][str(hours)]["scores"].items()), flush=True)
    write_text(place, text(read_json(path)))


if __name__ == "__main__": main()
