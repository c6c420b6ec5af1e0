"""What makes an MT3 transcribe: one change a row, from the network that `mt3_posteriors.py` trains, at equal
processor time.

    python benchmarks/mt3_posteriors.py pools --pieces data/pieces.npz --bank data/bank.safetensors -o data/mt3
    python benchmarks/mt3_ablations.py pool --pools data/mt3 --pieces data/pieces.npz --bank data/bank.safetensors
    python benchmarks/mt3_ablations.py run --pools data/mt3 --row "hard times" --seed 0
    python benchmarks/mt3_ablations.py table

Rows with one front end learn from simulated posteriors and real ones in equal shares, as the shipped network did.
The front ends (log-mel, features below the frame-wise heads, posteriors) learn from the same mixtures, real ones only;
with distillation the encoder first learns for a third of the time to say the posteriors. All are scored on
held-out pieces and a held-out soundfont. A run whose log is there is not repeated.
"""

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import mt3_posteriors as base
from common import LOGS, RESULTS, arguments, write_json, write_text
from instsep.frames import FrameTranscriber
from instsep.mt3 import MT3, MT3Config
from instsep.music.pieces import PieceBank
from instsep.sound.notebank import NoteBank

FOLDER = LOGS / "mt3_posteriors"
MELS = 229  # from 30 to 8000 Hz, frames of 2048 samples, as in Hawthorne et al. 2021
FRONT_ENDS = ("posteriors", "features", "log-mel", "log-mel, distilled")
ROWS = {
    "as it is": {},
    "chords in a random order": dict(order="random"),
    "hard times": dict(soft=0.0),
    "no guide": dict(guide=0.0),
    "weights begin at random": dict(begin=False),
    "positions to 1/10000 radian": dict(config=dict(frame_positions=None)),
    "without the fall": dict(fall=False),
    "offsets on the grid of 20 ms": dict(snap=False),
    "2 decoder layers": dict(config=dict(num_decoder_layers=2)),
    "4 decoder layers": dict(config=dict(num_decoder_layers=4)),
    **{f"front end: {name}": dict(front=name, real_share=1.0) for name in FRONT_ENDS},
}
LOOKED_AT = ("as it is", "weights begin at random")  # rows whose attention is kept, early and at the end


# ---- what the front ends read


def log_mel(sound: np.ndarray) -> np.ndarray:  # (samples,) at 22050 Hz -> (1 + samples/512, mels)
    import librosa

    mel = librosa.feature.melspectrogram(
        y=sound, sr=22050, n_fft=2048, hop_length=512, n_mels=MELS, fmin=30, fmax=8000, power=1.0
    )
    return np.log1p(100 * mel / (mel.mean() + 1e-5)).T


class Below:
    "A transcriber's features below its heads, taken down whenever it runs."

    def __init__(self, transcriber: FrameTranscriber):
        self.found, network = None, transcriber.network.network
        self.per_step = network.frames_per_step
        network.pitch_layers.register_forward_hook(lambda module, inputs, output: setattr(self, "found", output))

    def of(self, frames: int) -> np.ndarray:  # float16 (frames, pitches*width); a step stands for all of its frames
        steps = self.found[0].float().permute(1, 0, 2).flatten(1)  # (steps, pitches*width)
        return steps.repeat_interleave(self.per_step, 0)[:frames].numpy().astype(np.float16)


def make_pool(options) -> None:
    "Beside the posteriors of `mt3_posteriors.py pools`, what the other front ends read of the same mixtures."
    pools, pieces = Path(options.pools), PieceBank.load(options.pieces)
    transcriber = FrameTranscriber.from_pretrained()
    below = Below(transcriber)
    bank = NoteBank.load(options.bank)
    for name, mixtures, count in (
        ("held_out", base.held_out(pieces), 40),
        ("mixtures", base.training_mixtures(pieces, bank), options.mixtures),
    ):
        items, mels, features = [], [], []
        for number in range(count):
            score, stems = mixtures.item(number)
            posteriors = np.concatenate(list(transcriber.probabilities([stems.sum(0)])), -1)[:2]
            items.append(base.item_of(score, 8.0, posteriors))
            mels.append(log_mel(stems.sum(0)).astype(np.float16)[: posteriors.shape[-1]])
            features.append(below.of(posteriors.shape[-1]))
        base.save_pool(pools / f"{name}.npz", items)
        np.save(pools / f"{name}_log-mel.npy", np.stack(mels))
        np.save(pools / f"{name}_features.npy", np.stack(features))


def with_features(pools: Path, name: str, front: str | None) -> list[dict]:
    "A pool's items, each with what a front end reads, (frames, features)."
    items = base.load_pool(pools / f"{name}.npz")
    if front and front != "posteriors":
        rows = np.load(pools / f"{name}_{front.split(',')[0]}.npy", mmap_mode="r")
        for item, row in zip(items, rows):
            item["read"] = row
    return items


def read_window(item: dict, frame: int) -> np.ndarray:  # (frames, features) of a segment and its context
    low, high, rows = frame - base.CONTEXT, frame + base.SEGMENT + base.CONTEXT, item["read"]
    inside = np.asarray(rows[max(0, low) : min(len(rows), high)], np.float32)
    return np.pad(inside, [(max(0, -low), max(0, high - len(rows))), (0, 0)])


# ---- one run


def targets_with(options: dict, rng):
    "The target of a segment as a row has it: offsets on another grid, chords in another order."

    def target(parts, frame):
        snapped = base.audible if options.get("snap", True) else on_grid
        return base.target(parts, frame, snapped, rng if options.get("order") == "random" else None)

    return target


def on_grid(parts: list[np.ndarray]) -> list[np.ndarray]:  # each (n, 4) in seconds -> (n, 3): onset, offset, pitch
    return [
        np.c_[np.rint(part[:, :2] * base.STEPS), part[:, 2]].astype(int) if len(part) else np.zeros((0, 3), int)
        for part in parts
    ]


class Reader:
    "Segments of a row: what is read, and the tokens to be written."

    def __init__(self, pools: Path, options: dict, rng):
        self.front, self.options, self.rng = options.get("front", "posteriors"), options, rng
        self.real = with_features(pools, "mixtures", self.front)
        self.scores = base.load_pool(pools / "scores.npz")
        self.target = targets_with(options, rng)
        if "read" in self.real[0]:  # of each feature, over some of the mixtures
            some = np.concatenate([np.asarray(item["read"], np.float32) for item in self.real[:50]])
            self.mean, self.spread = some.mean(0), some.std(0) + 1e-3

    def one(self, item: dict, frame: int | None = None, noise: bool = True) -> tuple:
        rng = self.rng
        if frame is None:
            frame = int(rng.integers(0, int(item["seconds"] * base.RATE) - base.SEGMENT - 1))
        parts = item["parts"]
        if "values" not in item:
            if noise and rng.random() < 0.15:
                parts = [part[rng.random(len(part)) < rng.random()] for part in parts]
            return base.simulated(parts, frame, rng, noise), None, self.target(parts, frame)
        read = read_window(item, frame) if "read" in item else None
        return base.window(item, frame), read, self.target(parts, frame)

    def batches(self, size: int):
        share = self.options.get("real_share", 0.5)
        while True:
            drawn = []
            for _ in range(8 * size):
                pool = self.real if self.rng.random() < share else self.scores
                drawn.append(self.one(pool[self.rng.integers(len(pool))]))
            drawn = sorted((each for each in drawn if len(each[2]) < 230), key=lambda each: len(each[2]))
            groups = [drawn[k : k + size] for k in range(0, len(drawn) - size + 1, size)]
            for number in self.rng.permutation(len(groups)):
                yield groups[number]

    def inputs(self, group: list) -> torch.Tensor:  # (batch, frames, features)
        if group[0][1] is not None:
            return torch.from_numpy((np.stack([read for _, read, _ in group]) - self.mean) / self.spread)
        found = base.features(np.stack([posteriors for posteriors, _, _ in group]))
        if not self.options.get("fall", True):
            found[..., 2 * found.shape[-1] // 3 :] = 0
        return found


def fixed(pools: Path, options: dict, count: int = 64) -> list:
    "Segments of held-out pieces on a held-out soundfont; their targets are those of the row."
    rng = np.random.default_rng(99)
    items, target = with_features(pools, "held_out", options.get("front")), targets_with(options, rng)
    found = []
    for number in range(count):
        item = items[number % len(items)]
        frame = int(rng.integers(0, int(item["seconds"] * base.RATE) - base.SEGMENT - 1))
        read = read_window(item, frame) if "read" in item else None
        found.append((base.window(item, frame), read, target(item["parts"], frame)))
    return found


def score(network: MT3, reader: Reader, segments: list) -> dict:
    return base.score(network, segments, [ids for *_, ids in segments], read=reader.inputs, longest=260)


@torch.no_grad()
def attention_map(network: MT3, reader: Reader, segment: tuple, tokens: int = 48) -> dict:
    "Where the decoder looks for its first tokens, given the true ones: percent, mean over the last layer's heads."
    kept, ids = [], segment[2][:tokens]
    labels = base.labels_of([ids])
    base.forward(
        network, reader.inputs([segment]), F.pad(labels[:, :-1], (1, 0)), base.event_frames(labels).float(), kept=kept
    )
    percent = (100 * kept[-1][0].mean(0)).round().int().tolist()  # (tokens, frames)
    return dict(tokens=ids, frames=kept[-1].shape[-1], percent=[" ".join(map(str, row)) for row in percent])


def distill(network: MT3, reader: Reader, seconds: float, size: int) -> None:
    "The encoder learns to say the posteriors of each frame."
    says = torch.nn.Linear(network.config.d_model, 2 * 3 * base.PITCHES)
    torch.nn.init.constant_(says.bias, -4.0)
    weights = [*network.project.parameters(), *network.encoder.parameters(), *says.parameters()]
    optimizer, began = torch.optim.AdamW(weights, lr=1e-3), time.process_time()
    for group in reader.batches(size):
        if time.process_time() - began > seconds:
            return
        truth = torch.from_numpy(np.stack([posteriors for posteriors, _, _ in group])).flatten(1, 3).transpose(1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            logits = says(network.encode(reader.inputs(group)))
        loss = F.binary_cross_entropy_with_logits(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"distilled: {loss.item():.4f}", flush=True)


def run(options) -> None:
    "Train a row for so many processor seconds, and score it."
    name = "".join(c if c.isalnum() else "_" for c in options.row)
    log = Path(options.output) / f"ablation_{name}_{options.seed}.json"
    if log.is_file():
        return print(f"{log.name} is there already")
    row, pools, rng = ROWS[options.row], Path(options.pools), np.random.default_rng([options.seed, 3])
    torch.manual_seed(options.seed)
    reader, segments = Reader(pools, row, rng), fixed(pools, row)
    width = base.CONFIG.num_mels if segments[0][1] is None else segments[0][1].shape[-1]
    network = MT3(MT3Config(**base.CONFIG.to_diff_dict() | row.get("config", {}) | dict(num_mels=width)))
    if row.get("begin", True):
        base.begin(network)
    forward, soft = torch.compile(base.forward, dynamic=True), row.get("soft", 0.15)
    guide_weight = row.get("guide", 0.3)
    warm_up(forward, network, reader, options.batch)
    began, budget, lines = time.process_time(), options.seconds, []
    if row.get("front", "").endswith("distilled"):
        distill(network, reader, budget / 3, options.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01)
    average, step, recent, scored = {name: value.clone() for name, value in network.state_dict().items()}, 0, [], 0.0
    looked: list[dict] = []
    for group in reader.batches(options.batch):
        spent = time.process_time() - began - scored
        done = step / options.steps if options.steps else spent / budget
        if step % 200 == 99 or done >= 1:
            before, raw = time.process_time(), {key: value.clone() for key, value in network.state_dict().items()}
            network.load_state_dict(average)
            loss = round(float(np.mean(recent)), 4) if recent else None
            lines.append(dict(step=step, cpu_seconds=round(spent), train_loss=loss, **score(network, reader, segments)))
            print(json.dumps(lines[-1]), flush=True)
            if options.row in LOOKED_AT:
                shown = min(segments, key=lambda each: abs(len(each[2]) - 40))
                looked = [*looked[:1], dict(step=step, **attention_map(network, reader, shown))]
            network.load_state_dict(raw)
            scored += time.process_time() - before
        if done >= 1:
            break
        for each in optimizer.param_groups:
            each["lr"] = 1.5e-3 * (min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1))) + 0.01)
        labels = base.labels_of([ids for *_, ids in group])
        ids, at = F.pad(labels[:, :-1].clamp(min=0), (1, 0)), base.event_frames(labels)
        with torch.autocast("cpu", torch.bfloat16):
            logits, guide = forward(network, reader.inputs(group), ids, at)
        hard, loss = base.losses(logits, labels, soft)
        optimizer.zero_grad()
        (loss + guide_weight * guide[labels >= 0].mean()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step, recent = step + 1, [*recent[-99:], hard.item()]
        with torch.no_grad():
            for key, value in network.state_dict().items():
                average[key].lerp_(value, 1 - min(0.998, step / (step + 10)))
    if options.keep:
        torch.save(average, options.keep)
    command = f'python benchmarks/mt3_ablations.py run --row "{options.row}" --seed {options.seed} ' + (
        f"--steps {options.steps}" if options.steps else f"--seconds {budget:g}")
    weights = sum(each.numel() for each in network.parameters())
    write_json(
        log,
        dict(row=options.row, seed=options.seed, weights=weights, steps=step, log=lines, command=command)
        | (dict(attention=looked) if looked else {}),
    )


def warm_up(forward, network: MT3, reader: Reader, size: int) -> None:
    "Compile before the clock starts."
    for number, group in enumerate(reader.batches(size)):
        labels = base.labels_of([ids for *_, ids in group])
        with torch.autocast("cpu", torch.bfloat16):
            ids = F.pad(labels[:, :-1].clamp(min=0), (1, 0))
            logits, guide = forward(network, reader.inputs(group), ids, base.event_frames(labels))
        (logits.float().mean() + 0 * guide.mean()).backward()
        network.zero_grad()
        if number == 2:
            return


def over_seeds(values: list[float]) -> str:
    "Their mean, with half of their range."
    return f"{np.mean(values):.3f}" + (f" ± {np.ptp(values) / 2:.3f}" if len(values) > 1 else "")


def table(options) -> None:
    from instsep.metrics import format_table

    runs = {}
    for path in sorted(FOLDER.glob("ablation_*.json")):
        each = json.loads(path.read_text())
        runs.setdefault(each["row"], []).append(each)

    def of(seeds, key):
        return over_seeds([run["log"][-1][key] for run in seeds])

    rows = [
        {
            "one change": name,
            "seeds": len(runs[name]),
            "steps": round(np.mean([run["steps"] for run in runs[name]])),
            "loss": of(runs[name], "loss"),
            "onset F1": of(runs[name], "onset_f1"),
            "by instrument": of(runs[name], "instrument_onset_f1"),
            "with offsets": of(runs[name], "onset_offset_f1"),
        }
        for name in ROWS
        if name in runs
    ]
    write_text(RESULTS / "mt3_ablations.md", format_table(rows) + "\n")


def command_line(description: str, commands: dict, rows, row: str, mixtures: int, seconds: float):
    "A parser, and that of each command, with what all of them take."
    parser = arguments(description)
    subparsers, each = parser.add_subparsers(dest="command", required=True), []
    for name, command in commands.items():
        each.append(one := subparsers.add_parser(name))
        one.set_defaults(run=command)
        one.add_argument("--pools", default="data/mt3")
        one.add_argument("--pieces", default="data/pieces.npz")
        one.add_argument("--bank", default="data/bank.safetensors")
        one.add_argument("--mixtures", type=int, default=mixtures)
        one.add_argument("--row", default=row, choices=list(rows))
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--seconds", type=float, default=seconds)
        one.add_argument("-o", "--output", default=str(FOLDER))
    return parser, each


def main():
    commands = dict(pool=make_pool, run=run, table=table)
    parser, each = command_line(__doc__, commands, ROWS, "as it is", mixtures=400, seconds=200.0)
    for one in each:
        one.add_argument("--steps", type=int, help="in place of --seconds: on a processor that has other work, too")
        one.add_argument("--batch", type=int, default=32)
        one.add_argument("--keep", help="a file for the weights")
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
