"""Should an MT3 and the layer below the posteriors that it reads be trained together? One change, three seeds, equal
processor time.

    python benchmarks/mt3_joint.py pool --pieces data/pieces.npz --bank data/bank.safetensors --pools data/mt3
    python benchmarks/mt3_joint.py run --pools data/mt3 --row joint --seed 0
    python benchmarks/mt3_joint.py table

All rows begin with the networks that ship, trio-notes and trio-mt3, and go on with the same mixtures. *Tokens alone*
trains the encoder-decoder on posteriors that stay what they are; *joint* also the last harmonic layer of trio-notes and
its head, by the loss of the tokens; *joint, frames as well* adds the loss that these were trained with; *layer alone*
trains only the layer and its head, by the tokens' loss, and the encoder-decoder stays. `pool` writes what the last
layer reads, once for all rows. Scored on validation pieces on a soundfont that no training heard: what the network
decodes by itself, what it decodes held to the posteriors (as it ships), and peaks picked from the posteriors alone. A
run whose log is there is not repeated.
"""
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import mt3_posteriors as base
from mt3_ablations import FOLDER, command_line, over_seeds
from common import RESULTS, write_json, write_text
from instsep.core import bf16_autocast
from instsep.frames import OUTPUT_HEADS, FrameTranscriber, merge_monophonic, note_targets, pick_notes
from instsep.metrics import format_table
from instsep.mt3 import MT3, EvidenceMask
from instsep.music.pieces import PieceBank
from instsep.sound.notebank import NoteBank
from instsep.training.frames import notes_loss

ROWS = {
    "nothing": dict(layer=False, tokens=False, frames=0.0),
    "tokens alone": dict(layer=False, tokens=True, frames=0.0),
    "layer alone": dict(layer=True, tokens=False, frames=0.0),
    "joint": dict(layer=True, tokens=True, frames=0.0),
    "joint, frames as well": dict(layer=True, tokens=True, frames=0.3),
}
MIXTURES, SEGMENTS = 4, 4        # in a batch; of each mixture
RATE, AVERAGE = 2e-4, 0.99       # learning rate, decay of the averaged weights
SECONDS = 8.0                    # of a mixture


class LastLayer(nn.Module):
    "The last harmonic layer of a frame-wise network, and its head."
    def __init__(self, transcriber: FrameTranscriber):
        super().__init__()
        network = transcriber.network.network
        self.layer, self.head = copy.deepcopy(network.pitch_layers[-1]), copy.deepcopy(network.head)
        self.instruments, self.per_step = network.instruments, network.frames_per_step
        self.monophonic = network.monophonic

    def forward(self, below: torch.Tensor, frames: int) -> torch.Tensor:
        "(batch, pitches, steps, width) -> logits (batch, heads, instruments and other, pitches, frames)"
        with bf16_autocast(below.device): y = self.head(self.layer(below)).float()
        y = y.unflatten(-1, (len(OUTPUT_HEADS), self.instruments, self.per_step))
        return y.permute(0, 3, 4, 1, 2, 5).flatten(4)[..., :frames]

    def posteriors(self, logits: torch.Tensor) -> torch.Tensor:
        "-> (batch, 2, instruments, pitches, frames), as `FrameTranscriber.probabilities` gives them"
        return merge_monophonic(logits, self.monophonic)[0][:, :2, :-1].sigmoid()


def features(posteriors: torch.Tensor) -> torch.Tensor:  # (batch, 2, ...) -> (batch, frames, features)
    "As `posterior_features`, with a gradient."
    frame = posteriors[:, 1]
    fall = (torch.cat([frame[..., :1], frame[..., :-1]], -1) - frame).clamp_min(0)
    return base.SCALE * torch.cat([posteriors, fall[:, None]], 1).flatten(1, 3).transpose(1, 2)


def cut_out(posteriors: torch.Tensor, frame: int) -> torch.Tensor:
    "The posteriors (2, instruments, pitches, frames) of a segment with its context; zeros outside the recording."
    low, high = frame - base.CONTEXT, frame + base.SEGMENT + base.CONTEXT
    inside = posteriors[..., max(0, low):min(high, posteriors.shape[-1])]
    return F.pad(inside, (max(0, -low), max(0, high - posteriors.shape[-1])))


# ---- data

def make_pool(options) -> None:
    "Mixtures with their posteriors, and what the last layer reads of them."
    pools, pieces, transcriber = Path(options.pools), PieceBank.load(options.pieces), FrameTranscriber.from_pretrained()
    below: list = []
    layer = transcriber.network.network.pitch_layers[-1]
    layer.register_forward_pre_hook(lambda module, inputs: below.append(inputs[0][0].half().numpy()))
    bank = NoteBank.load(options.bank)
    for name, mixtures, count in (("held_out", base.held_out(pieces), 40),
                                  ("mixtures", base.training_mixtures(pieces, bank), options.mixtures)):
        below.clear()
        base.save_pool(pools / f"joint_{name}.npz", base.heard(mixtures, count, transcriber))
        np.save(pools / f"joint_{name}.npy", np.stack(below))


def load(pools: Path, name: str) -> list[dict]:
    items = base.load_pool(pools / f"joint_{name}.npz")
    for item, below in zip(items, np.load(pools / f"joint_{name}.npy", mmap_mode="r")): item["below"] = below
    return items


def place(item: dict, rng) -> int:  # the frame where a segment begins
    return int(rng.integers(0, int(item["seconds"] * base.RATE) - base.SEGMENT - 1))


# ---- scores

@torch.no_grad()
def score(network: MT3, last: LastLayer, items: list[dict], count: int = 64) -> dict:
    "Loss and notes of fixed segments: decoded freely, held to the posteriors, and as peaks of these alone."
    network.eval()
    rng, rows, truth, picked = np.random.default_rng(99), [], [], []
    for number in range(count):
        item = items[number % len(items)]
        if "posteriors" not in item:
            frames = int(item["shape"][-1])
            item["posteriors"] = last.posteriors(last(torch.from_numpy(np.float32(item["below"]))[None], frames))[0]
        frame = place(item, rng)
        rows.append(cut_out(item["posteriors"], frame))
        truth.append(base.target(item["parts"], frame))
        table, who, _ = pick_notes(np.concatenate([rows[-1].numpy(), np.ones((1, *rows[-1].shape[1:]))]), base.RATE)
        table[:, :2] += (frame - base.CONTEXT) / base.RATE
        picked += base.within(np.c_[table[:, :3], np.array(base.PROGRAMS)[who]], frame / base.RATE, number)
    for item in items: item.pop("posteriors", None)
    inputs, total, tokens, free, held = features(torch.stack(rows)), 0.0, 0, [], []
    for k in range(0, count, 32):
        x, labels = inputs[k:k + 32], base.labels_of(truth[k:k + 32])
        loss, _ = base.losses(network(inputs=x, labels=labels).logits, labels, 0.0)
        total, tokens = total + float(loss) * int((labels >= 0).sum()), tokens + int((labels >= 0).sum())
        free += network.generate(x, max_length=260)[:, 1:].tolist()
        mask = EvidenceMask(network.config, x / base.SCALE)
        held += network.generate(x, max_length=260, logits_processor=[mask])[:, 1:].tolist()
    network.train()
    notes = base.read_notes(truth)
    return dict(loss=round(total / tokens, 4), free=base.compare(notes, base.read_notes(free)),
                held=base.compare(notes, base.read_notes(held)), peaks=base.compare(notes, picked))


# ---- one run

def shipped() -> MT3:
    "trio-mt3 as it is while training: its features are larger."
    network = MT3.from_pretrained("trio-mt3").float()
    with torch.no_grad(): network.project.weight /= base.SCALE
    return network


def batch(items: list[dict], last: LastLayer, row: dict, rng):
    "Features (segments, frames, _) of some mixtures' segments, their targets, and the frames' own loss."
    drawn = [items[k] for k in rng.integers(len(items), size=MIXTURES)]
    frames, own = int(drawn[0]["shape"][-1]), torch.zeros(())
    if row["layer"]:
        logits = last(torch.from_numpy(np.stack([item["below"] for item in drawn]).astype(np.float32)), frames)
        posteriors = last.posteriors(logits)
        if row["frames"]:
            targets = np.stack([note_targets(item["parts"], frames, base.RATE) for item in drawn])
            own = notes_loss(logits[:, :, :-1], torch.from_numpy(targets))
    found, targets = [], []
    for number, item in enumerate(drawn):
        for _ in range(SEGMENTS):
            frame = place(item, rng)
            ids = base.target(item["parts"], frame)
            if len(ids) >= 230: continue
            targets.append(ids)
            found.append(cut_out(posteriors[number], frame) if row["layer"]
                         else torch.from_numpy(base.window(item, frame)))
    return features(torch.stack(found)), targets, own


def run(options) -> None:
    "Train a row for so many processor seconds, and score it."
    log = Path(options.output) / f"joint_{options.row.replace(', ', '_').replace(' ', '_')}_{options.seed}.json"
    if log.is_file(): return print(f"{log.name} is there already")
    row, pools, rng = ROWS[options.row], Path(options.pools), np.random.default_rng([options.seed, 5])
    torch.manual_seed(options.seed)
    items, held_out = load(pools, "mixtures"), load(pools, "held_out")
    network, last = shipped(), LastLayer(FrameTranscriber.from_pretrained())
    trained = nn.ModuleDict(dict(network=network, last=last))
    network.requires_grad_(row["tokens"])
    last.requires_grad_(row["layer"])
    weights = [each for each in trained.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01) if weights else None
    forward = torch.compile(base.forward, dynamic=True)
    average = {name: value.clone() for name, value in trained.state_dict().items()}
    step, spent, recent = 0, 0.0, []
    while weights and spent < options.seconds:
        began = time.process_time()
        for each in optimizer.param_groups:
            each["lr"] = RATE * min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * spent / options.seconds))
        inputs, targets, own = batch(items, last, row, rng)
        labels = base.labels_of(targets)
        with torch.autocast("cpu", torch.bfloat16):
            logits, guide = forward(network, inputs, F.pad(labels[:, :-1].clamp(min=0), (1, 0)),
                                    base.event_frames(labels))
        hard, loss = base.losses(logits, labels, 0.15)
        optimizer.zero_grad()
        (loss + 0.3 * guide[labels >= 0].mean() + row["frames"] * own).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step, recent = step + 1, [*recent[-99:], hard.item()]
        with torch.no_grad():
            for name, value in trained.state_dict().items():
                average[name].lerp_(value, 1 - min(AVERAGE, step / (step + 10)))
        if step > 3: spent += time.process_time() - began          # compiled by then
        if step % 50 == 0: print(f"{step} steps, {spent:.0f} s, loss {np.mean(recent):.4f}", flush=True)
    trained.load_state_dict(average)
    write_json(log, dict(
        row=options.row, seed=options.seed, steps=step, trained_weights=sum(each.numel() for each in weights),
        train_loss=round(float(np.mean(recent)), 4) if recent else None, after=score(network, last, held_out),
        command=f'python benchmarks/mt3_joint.py run --row "{options.row}" --seed {options.seed} '
                f"--seconds {options.seconds:g}"), indent=1)


def table(options) -> None:
    runs: dict[str, list] = {}
    for path in sorted(FOLDER.glob("joint_*.json")):
        each = json.loads(path.read_text())
        runs.setdefault(each["row"], []).append(each)

    def line(name: str, seeds: int, steps: int, found: list[dict]) -> dict:
        scores = {"loss": over_seeds([each["loss"] for each in found])}
        return {"trained": name, "seeds": seeds, "steps": steps} | scores | {
            f"{label}, {kind}": over_seeds([each[way][measure] for each in found])
            for way, label in (("free", "decoded freely"), ("held", "held to the posteriors"), ("peaks", "peaks alone"))
            for measure, kind in (("instrument_onset_f1", "by instrument"), ("onset_offset_f1", "with offsets"))}

    command = runs["joint"][0]["command"]
    lines = [line(name, len(runs[name]), round(np.mean([each["steps"] for each in runs[name]])),
                   [each["after"] for each in runs[name]]) for name in ROWS if name in runs]
    write_text(RESULTS / "mt3_joint.md", f"""# MT3 and the layer below it, trained together

`{command}`, and so on; loss in nats a token, F1 of notes, mean over seeds ± half of their range. 64 segments
of validation pieces on a soundfont that no training heard.

{format_table(lines)}
""")


def main():
    commands = dict(pool=make_pool, run=run, table=table)
    parser, _ = command_line(__doc__, commands, ROWS, "joint", mixtures=300, seconds=180.0)
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__": main()
