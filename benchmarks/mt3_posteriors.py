"""An MT3 that reads the posteriors of the frame-wise transcriber: its data, its training, and the paper's study on it.

    python benchmarks/mt3_posteriors.py pools --pieces data/pieces.npz --bank data/bank.safetensors -o data/mt3
    python benchmarks/mt3_posteriors.py train --pools data/mt3 -o runs/mt3 --minutes 66
    python benchmarks/mt3_posteriors.py ship --pools data/mt3 --init runs/mt3/last.pt -o runs/trio-mt3 --minutes 9
    python benchmarks/mt3_posteriors.py study --pools data/mt3 --init runs/mt3/last.pt --way everything \\
        -o nbs/results/mt3_posteriors
    python benchmarks/mt3_posteriors.py baselines --pools data/mt3 -o nbs/results/mt3_posteriors
    python benchmarks/mt3_posteriors.py export --init runs/trio-mt3/last.pt -o trio-mt3
    python benchmarks/mt3_posteriors.py table

`pools` writes scores (for posteriors made from the notes alone), mixtures with the posteriors that trio-notes gives for
them, the paper's fine-tuning set (ten pieces, the same notes on guitar and piano two octaves apart), and mixtures of
all kinds on a soundfont that no training heard. `train` goes on where it stopped, `study` does not repeat a run whose
log is there. `baselines` says what the fixed segments of the study allow: the codec's ceiling, the frame-wise network's
own notes, and chance. `table` makes benchmarks/results/mt3_posteriors_study.md from the logs in
nbs/results/mt3_posteriors.
"""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from common import HELD_OUT_SOUNDFONT, LOGS, RESULTS, arguments, exact_mixtures, soundfonts, write_json, write_text
from instsep.files.posteriors import posterior_features
from instsep.frames import LOWEST_PITCH, FrameTranscriber, pick_notes
from instsep.metrics import match_notes
from instsep.mixtures import INSTRUMENTS, STRONG_AUGMENTATION, TRIO, Mixtures, balanced, bank_player, cut
from instsep.mt3 import MT3, MT3Config, positions_at
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.music.tokens import END, pad_labels
from instsep.sound.notebank import NoteBank

PROGRAMS = tuple(INSTRUMENTS[name].programs[0] for name in TRIO)  # 71, 24, 0
CONFIG = MT3Config(
    front_end="posteriors",
    d_model=256,
    d_kv=64,
    d_ff=512,
    num_heads=4,
    num_layers=1,
    num_decoder_layers=3,
    dropout_rate=0.0,
    vocab_size=208,
    frame_positions="segment",
    steps_per_second=50,
    max_shift_seconds=2.1,
    program_list=PROGRAMS,
    pitch_range=(21, 108),
    drums=False,
    event_order="step",
)
CODEC, FRONT = CONFIG.codec, CONFIG.frontend
RATE, CONTEXT, SEGMENT, INPUT = FRONT.frame_rate, FRONT.context_frames, FRONT.segment_frames, FRONT.input_frames
STEPS = CODEC.steps_per_second
(SHIFT, SHIFTS), (PITCH, PITCHES) = CODEC.ranges["shift"], CODEC.ranges["pitch"]
KINDS = dict(unrelated=0.4, parts=0.42, unison=0.18)  # no octaves: fine-tuning is to have something to teach
PLAN = dict(instruments=TRIO, sample_rate=22050, absent=0.2, kinds=KINDS)
SCALE = 4.0  # of the features while training; it goes into the weights
LONGEST = 520  # tokens of a segment in the study: the densest of the fine-tuning set's has 489


# ---- targets


def audible(
    parts: list[np.ndarray],
) -> list[np.ndarray]:  # each (n, 4) in seconds -> (n, 3): onset, offset (steps), pitch
    "Onsets on the grid; an offset where something begins within 40 ms, else on a grid of 40 ms: less is inaudible."
    begun = [np.rint(part[:, 0] * STEPS).astype(int) for part in parts]
    onsets = np.unique(np.concatenate(begun))

    def snap(step):
        at = np.searchsorted(onsets, step)
        near = [int(onsets[k]) for k in (at - 1, at) if 0 <= k < len(onsets)]
        best = min(near, key=lambda onset: abs(onset - step), default=-99)
        return best if abs(best - step) <= 2 else int(round(step / 2) * 2)

    ends = [np.array([snap(step) for step in np.rint(part[:, 1] * STEPS).astype(int)], int) for part in parts]
    return [
        np.stack([on, np.maximum(off, on + 1), part[:, 2].astype(int)], 1) for on, off, part in zip(begun, ends, parts)
    ]


def target(
    parts: list[np.ndarray],  # of each instrument, (n, 4): onset s, offset s, pitch, velocity
    frame: int,  # where the segment begins
    on_steps=audible,  # from seconds to steps
    shuffled=None,  # a random generator: the notes of a chord in any order, as by their unrounded times
) -> list[int]:  # tokens
    "Ties, the tie token, events by step, offsets first, then by program and pitch."
    start, end = FRONT.step(frame, CODEC), FRONT.step(frame + SEGMENT, CODEC)
    events, ties = [], []
    low, high = start / STEPS - 1, end / STEPS + 1  # what lies further away changes nothing
    parts = [part[(part[:, 0] < high) & (part[:, 1] > low)] for part in parts]
    for k, part in enumerate(on_steps(parts)):
        next_onset = {}
        for on, off, pitch in part[np.lexsort((part[:, 1], part[:, 0]))[::-1]].tolist():
            off = min(off, next_onset.get(pitch, off))
            if off <= on:
                continue
            next_onset[pitch] = on
            if not 21 <= pitch <= 108:
                continue
            if on < start < off:
                ties.append((k, pitch))
            if start <= on < end:
                events.append((on, 1, k, pitch))
            if start < off < end:
                events.append((off, 0, k, pitch))
    ids, program = [], None
    for k, pitch in sorted(set(ties)):
        if k != program:
            ids.append(CODEC.id("program", PROGRAMS[k]))
        ids.append(CODEC.id("pitch", pitch))
        program = k
    ids.append(CODEC.id("tie"))
    now, velocity = start, None
    order = sorted(events)
    if shuffled is not None:
        order = [events[number] for number in np.lexsort((shuffled.random(len(events)), [each[0] for each in events]))]
    for step, on, k, pitch in order:
        if step > now:
            ids.append(CODEC.id("shift", step - start))
        if k != program:
            ids.append(CODEC.id("program", PROGRAMS[k]))
        if on != velocity:
            ids.append(CODEC.id("velocity", on))
        ids.append(CODEC.id("pitch", pitch))
        now, program, velocity = step, k, on
    return ids + [END]


# ---- posteriors


def simulated(
    parts: list[np.ndarray], frame: int, rng, noise: bool = True
) -> np.ndarray:  # (2, instruments, pitches, frames)
    "The posteriors a frame-wise transcriber may give: triangles and bars, some unsure, some on the wrong instrument."
    out, frames, first = np.zeros((2, 3, PITCHES, INPUT), np.float32), np.arange(INPUT), frame - CONTEXT
    for k, part in enumerate(parts):
        for onset, offset, pitch in part[:, :3].tolist():
            begin, end, key = onset * RATE - first, offset * RATE - first, int(pitch) - 21
            if not (0 <= key < PITCHES and end > -2 and begin < INPUT + 2):
                continue
            sure = held_sure = 1.0
            if noise:
                draw = rng.random()
                sure = 1.0 if draw < 0.45 else rng.uniform(0.25, 1) if draw < 0.97 else rng.uniform(0, 0.3)
                held_sure = 1.0 if rng.random() < 0.6 else rng.uniform(0.35, 1)
                begin += rng.normal(0, 0.15)
                end += rng.normal(0, 0.4) + (rng.exponential(3) if rng.random() < 0.05 else 0)
            peak = np.maximum(1 - np.abs(frames - begin) / (rng.uniform(1.2, 2.2) if noise else 2.0), 0)
            if noise:
                peak = np.minimum(peak * rng.uniform(0.8, 1.3), 1)
            low, high = max(0, math.ceil(begin)), min(INPUT, max(math.ceil(end), math.ceil(begin) + 1))
            held = ((frames >= low) & (frames < high)).astype(np.float32)
            if noise and high > low:
                held = np.maximum(
                    held, np.clip(1 - (frames - high + 1) / (rng.uniform(0, 2) + 1), 0, 1) * (frames >= low)
                )
                if rng.random() < 0.3:  # it fades
                    held = held * np.clip(1.15 - (frames - low) / max(high - low, 1) * rng.uniform(0, 0.8), 0.1, 1)
            shares = [(k, 1.0)]
            if noise and rng.random() < 0.12:
                other, share = (k + 1 + rng.integers(2)) % 3, rng.uniform(0, 0.65)
                shares = [(k, 1 - share * rng.uniform(0.3, 1)), (other, share)]
            for who, share in shares:
                out[0, who, key] = np.maximum(out[0, who, key], peak * sure * share)
                out[1, who, key] = np.maximum(out[1, who, key], held * held_sure * share)
    if noise:
        for _ in range(rng.poisson(3)):  # and what nobody plays
            who, key, at, height = rng.integers(3), rng.integers(10, 80), rng.uniform(0, INPUT), rng.uniform(0.03, 0.4)
            out[0, who, key] = np.maximum(
                out[0, who, key], np.maximum(1 - np.abs(frames - at) / rng.uniform(1, 2), 0) * height
            )
            length = rng.integers(0, 15)
            span = out[1, who, key, int(at) : int(at) + length]
            np.maximum(span, height * rng.uniform(0.3, 1.3), out=span)
    return np.minimum(out, 1)


def sparse(posteriors: np.ndarray) -> tuple:  # (2, instruments, pitches, frames) -> shape, places, values in 255ths
    steps = np.rint(posteriors * 255).astype(np.uint8)
    steps[steps < 3] = 0
    places = np.flatnonzero(steps)
    return np.array(steps.shape), places.astype(np.int32), steps.reshape(-1)[places]


def window(item: dict, frame: int) -> np.ndarray:  # (2, instruments, pitches, frames)
    "The posteriors of a segment with its context; zeros outside the recording."
    if "full" not in item:
        full = np.zeros(int(np.prod(item["shape"])), np.uint8)
        full[item["places"]] = item["values"]
        item["full"] = full.reshape(item["shape"])
    full = item["full"]
    low, high = frame - CONTEXT, frame + SEGMENT + CONTEXT
    inside = full[..., max(0, low) : min(full.shape[-1], high)]
    return np.pad(inside, [(0, 0)] * 3 + [(max(0, -low), max(0, high - full.shape[-1]))]).astype(np.float32) / 255


# ---- pools: .npz files of arrays, an item after the other


def save_pool(path: Path, items: list[dict]) -> None:
    arrays = {f"{number:06d}/{name}": value for number, item in enumerate(items) for name, value in item.items()}
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)
    print(f"{path.name}: {len(items)} items", flush=True)


def load_pool(path: Path) -> list[dict]:
    with np.load(path, allow_pickle=False) as arrays:
        items = {}
        for name in arrays.files:
            number, field = name.split("/")
            items.setdefault(number, {})[field] = arrays[name]
    return [
        dict(item, parts=[item[f"part{k}"] for k in range(3)], seconds=float(item["seconds"]))
        for item in items.values()
    ]


def item_of(score, seconds: float, posteriors: np.ndarray | None = None) -> dict:
    parts = {f"part{k}": score.parts.get(name, np.zeros((0, 4))) for k, name in enumerate(TRIO)}
    found = {} if posteriors is None else dict(zip(("shape", "places", "values"), sparse(posteriors)))
    return dict(parts, seconds=np.array(seconds), **found)


def silent_player(*arguments, **options):
    return None


def make_pools(options) -> None:
    folder, pieces, bank = Path(options.output), PieceBank.load(options.pieces), NoteBank.load(options.bank)
    folder.mkdir(parents=True, exist_ok=True)
    scores = Mixtures(
        pieces.split()["train"],
        silent_player,
        {name: ["any"] for name in TRIO},
        seconds=6.5,
        other=0.0,
        seed=1,
        augmentation=(),
        **PLAN,
    )
    save_pool(folder / "scores.npz", [item_of(scores.score(number), 6.5) for number in range(options.scores)])
    mixtures = training_mixtures(pieces, bank)
    transcriber = FrameTranscriber.from_pretrained()
    save_pool(folder / "mixtures.npz", heard(mixtures, options.mixtures, transcriber))
    save_pool(folder / "held_out.npz", heard(held_out(pieces), 40, transcriber))
    make_octaves(folder, pieces, bank, transcriber)


def training_mixtures(pieces: PieceBank, bank: NoteBank) -> Mixtures:
    "Training pieces on recorded notes and soundfonts, of all kinds but octaves."
    weights = dict(FluidR3_GM=1.5, MuseScore_General_Full=1.5)
    return Mixtures(
        pieces.split()["train"],
        bank_player(bank, cents=12.0, fade=True),
        balanced(bank, weights),
        seconds=8.0,
        other=0.15,
        seed=11,
        augmentation=STRONG_AUGMENTATION,
        **PLAN,
    )


def heard(mixtures: Mixtures, count: int, transcriber: FrameTranscriber) -> list[dict]:
    "The first mixtures, with the posteriors that the transcriber gives for them."
    items = []
    for number in range(count):
        score, stems = mixtures.item(number)
        items.append(item_of(score, 8.0, np.concatenate(list(transcriber.probabilities([stems.sum(0)])), -1)[:2]))
    return items


def held_out(pieces: PieceBank) -> Mixtures:
    "Validation pieces on a soundfont that no training heard, of all kinds, octaves among them."
    kinds = dict(unrelated=0.33, parts=0.37, unison=0.12, octaves=0.18)
    return exact_mixtures(
        soundfonts()[HELD_OUT_SOUNDFONT], pieces.split()["valid"], sample_rate=22050, other=0.0, kinds=kinds, seed=5
    )


def make_octaves(folder: Path, pieces, bank, transcriber) -> None:
    "The paper's fine-tuning set: whole pieces, 80/20."
    from instsep.training.mt3 import WholePieces, octave_pieces

    player, weights = bank_player(bank, cents=12.0, fade=True), dict(FluidR3_GM=1.5, MuseScore_General_Full=1.5)
    for name, chosen, seed in zip(("train", "valid"), octave_pieces(pieces, count=10, hours=1.5), (0, 1)):
        whole, items = WholePieces(chosen, player, balanced(bank, weights), sample_rate=22050, seed=seed), []
        for number, _ in enumerate(chosen):
            score = whole.arranged[number]
            end = max(part[:, 1].max() for part in score.parts.values()) + 1
            posteriors = np.concatenate(
                list(transcriber.probabilities(blocks_of(score, player, end, seed, number))), -1
            )[:2]
            items.append(item_of(score, posteriors.shape[-1] / RATE, posteriors))
        save_pool(folder / f"octaves_{name}.npz", items)


def blocks_of(score, player, end: float, seed: int, number: int):
    "A piece as sound, 20 s at a time, each player at a level of its own."
    rng = np.random.default_rng([seed, number, 7])
    gains = {name: 0.05 * 10 ** (rng.uniform(-5, 5) / 20) for name in score.parts}
    for start in np.arange(0, end, 20.0):
        total = 0
        for name, notes in score.parts.items():
            sound = player(
                cut(notes, start, 20.0),
                INSTRUMENTS[name],
                score.instances[name],
                20.0,
                np.random.default_rng([seed, number, int(start)]),
            )
            total = total + sound * gains[name] / max(np.sqrt(np.mean(sound**2)), 0.02)
        yield (total / max(1, np.abs(total).max() / 0.95)).astype(np.float32)


# ---- the network before it has learnt anything, and its loss


def begin(network: MT3) -> MT3:
    """Times begin as the positions of the frames they stand for, pitches as the columns of their posteriors (if these
    are read), and cross-attention looks for the position of a time and passes on what it finds."""
    d = CONFIG.d_model
    with torch.no_grad():
        times = positions_at(torch.arange(SHIFTS) / STEPS * RATE + CONTEXT, d, "segment")
        network.embed.weight[SHIFT : SHIFT + SHIFTS] = 1.5 * times
        network.lm_head.weight[SHIFT : SHIFT + SHIFTS] = times * d**-0.5
        pitches = torch.randn(PITCHES, d)
        columns = torch.randn(3, 3, PITCHES, d) * 0.5 + pitches
        columns[1] *= 0.6
        if network.project.in_features == 3 * 3 * PITCHES:
            network.project.weight.copy_(columns.flatten(0, 2).T * (2 * 3 * PITCHES) ** -0.5 * 1.5)
        network.embed.weight[PITCH : PITCH + PITCHES] = pitches
        network.lm_head.weight[PITCH : PITCH + PITCHES] = pitches * d**-0.5
        for layer in network.decoder:
            attention = layer.cross_attention
            attention.q.weight.copy_(2 * d**-0.5 * attention.k.weight)
            attention.o.weight.copy_(attention.v.weight.T)
    return network


def attend(attention, x, keys, values, mask=None, at=None, reach=1.6, kept=None):
    "Attention, and how little half of the heads look at the frame where it happens: guided attention."
    scores = attention.split(attention.q(x)) @ keys.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    log_weights, guide = scores.float().log_softmax(-1), 0.0
    if kept is not None:
        kept.append(log_weights.exp())
    if at is not None:
        near = (torch.arange(keys.shape[2]) - at[..., None]).abs() <= reach
        share = (log_weights[:, : attention.num_heads // 2].exp() * near[:, None]).sum(-1)
        guide = -(share + 1e-4).log().mean(1)  # (batch, tokens)
    found = log_weights.exp().to(values.dtype) @ values
    return attention.o(found.transpose(1, 2).flatten(-2)), guide


def forward(network: MT3, x, ids, at, kept=None):
    """Logits (batch, tokens, vocabulary) and the guide's loss (batch, tokens); plain products, which compile well. The
    weights of cross-attention, (batch, heads, tokens, frames) a layer, are appended to `kept`."""
    x = network.project(x) + network.frame_positions[: x.shape[1]]
    for layer in network.encoder:
        normed = layer.attention_norm(x)
        x = x + attend(layer.attention, normed, *layer.attention.keys_values(normed))[0]
        x = x + layer.feed_forward(layer.feed_forward_norm(x))
    encoded, count = network.encoder_norm(x), ids.shape[1]
    y, mask, guide = network.embed(ids) + network.positions[:count], torch.full((count, count), -1e4).triu(1), 0.0
    for layer in network.decoder:
        normed = layer.self_attention_norm(y)
        y = y + attend(layer.self_attention, normed, *layer.self_attention.keys_values(normed), mask=mask)[0]
        asked, answers = layer.cross_attention_norm(y), layer.cross_attention.keys_values(encoded)
        found, share = attend(layer.cross_attention, asked, *answers, at=at, kept=kept)
        y, guide = y + found, guide + share
        y = y + layer.feed_forward(layer.feed_forward_norm(y))
    return network.lm_head(network.decoder_norm(y)), guide / len(network.decoder)


def event_frames(labels: torch.Tensor) -> torch.Tensor:  # (batch, tokens): the frame that each token is about
    is_time = (labels >= SHIFT) & (labels < SHIFT + SHIFTS)
    last = torch.where(is_time, torch.arange(labels.shape[1]), -1).cummax(1).values
    time_ = torch.where(is_time, labels - SHIFT, 0).gather(1, last.clamp(min=0)) / STEPS * RATE + CONTEXT
    return torch.where(labels == END, float(SEGMENT + CONTEXT), torch.where(last >= 0, time_, float(CONTEXT)))


def losses(logits: torch.Tensor, labels: torch.Tensor, soft: float) -> tuple[torch.Tensor, torch.Tensor]:
    "Cross-entropy, and the same with some of each time's weight on the steps before and after it."
    log_p, known, labels = logits.float().log_softmax(-1), labels >= 0, labels.clamp(min=0)

    def nll(ids):
        return -log_p.gather(-1, ids[..., None])[..., 0]

    hard = nll(labels)
    is_time = (labels > SHIFT) & (labels < SHIFT + SHIFTS - 1) & known
    around = nll((labels - 1).clamp(min=0)) + nll((labels + 1).clamp(max=logits.shape[-1] - 1))
    return hard[known].mean(), torch.where(is_time, (1 - 2 * soft) * hard + soft * around, hard)[known].mean()


# ---- batches and scores


def features(
    posteriors: np.ndarray,
) -> torch.Tensor:  # (batch, 2, instruments, pitches, frames) -> (batch, frames, features)
    return torch.from_numpy(np.stack([posterior_features(*each) for each in posteriors])) * SCALE


def labels_of(targets: list[list[int]]) -> torch.Tensor:
    return torch.from_numpy(pad_labels(targets)).long()


def segment(item: dict, rng, *, noise: bool = True) -> tuple[np.ndarray, list[int]]:
    frame = int(rng.integers(0, int(item["seconds"] * RATE) - SEGMENT - 1))
    if "values" in item:
        return window(item, frame), target(item["parts"], frame)
    parts = item["parts"]
    if noise and rng.random() < 0.15:
        parts = [part[rng.random(len(part)) < rng.random()] for part in parts]  # sparse
    return simulated(parts, frame, rng, noise), target(parts, frame)


def batches(scores: list, real: list, share: float, size: int, rng):
    "Endless batches of segments of about the same length."
    while True:
        drawn = [
            segment((pool := real if rng.random() < share else scores)[rng.integers(len(pool))], rng)
            for _ in range(8 * size)
        ]
        drawn = sorted((pair for pair in drawn if len(pair[1]) < 230), key=lambda pair: len(pair[1]))
        groups = [drawn[k : k + size] for k in range(0, len(drawn) - size + 1, size)]
        for number in rng.permutation(len(groups)):
            yield np.stack([x for x, _ in groups[number]]), labels_of([y for _, y in groups[number]])


def fixed(items: list, count: int, seed: int = 99) -> tuple[np.ndarray, list]:
    rng = np.random.default_rng(seed)
    pairs = [segment(items[k % len(items)], rng, noise=False) for k in range(count)]
    return np.stack([x for x, _ in pairs]), [y for _, y in pairs]


def read_notes(token_lists: list) -> list[Note]:
    "Notes that begin in each segment, the segments far apart in time; one struck again within 80 ms counts once."
    from instsep.music.tokens import NoteDecoder

    notes = []
    for number, ids in enumerate(token_lists):
        decoder = NoteDecoder(CODEC).read(number * 100 * STEPS, ids)
        last = {}
        for note in sorted(decoder.finish(number * 100 * STEPS + 103).notes):
            key = note.program, note.pitch
            if key not in last or note.onset - last[key] > 0.081:
                notes.append(note)
            last[key] = note.onset if key not in last or note.onset - last[key] > 0.081 else last[key]
    return notes


@torch.no_grad()
def score(network: MT3, inputs, targets: list, read=features, longest: int = LONGEST) -> dict:
    "Loss and notes of fixed segments, without any mask: what the network itself decodes; `read` makes its input."
    network.eval()
    total = count = 0
    written = []
    for k in range(0, len(inputs), 32):
        x, labels = read(inputs[k : k + 32]), labels_of(targets[k : k + 32])
        loss, _ = losses(network(inputs=x, labels=labels).logits, labels, 0.0)
        total, count = total + loss * (labels >= 0).sum(), count + (labels >= 0).sum()
        written += network.generate(x, max_length=longest)[:, 1:].tolist()
    network.train()
    return dict(loss=round(float(total / count), 4), **compare(read_notes(targets), read_notes(written)))


def compare(truth: list[Note], found: list[Note]) -> dict:
    "Onset F1, by instrument, with offsets, and how many notes are false and missing."

    def f1(**options):
        return round(2 * len(match_notes(truth, found, **options)) / max(1, len(truth) + len(found)), 4)

    right = len(match_notes(truth, found, offset_ratio=None))
    return dict(
        onset_f1=f1(offset_ratio=None),
        instrument_onset_f1=f1(offset_ratio=None, instrument=lambda note: note.program),
        onset_offset_f1=f1(),
        notes_true=len(truth),
        notes_found=len(found),
        false_positives=len(found) - right,
        false_negatives=len(truth) - right,
    )


# ---- training


def train(options) -> None:
    "Half of the segments from simulated posteriors, half from real ones; averages of the weights are what counts."
    folder, pools = Path(options.output), Path(options.pools)
    folder.mkdir(parents=True, exist_ok=True)
    shipping = options.command == "ship"
    real = load_pool(pools / "mixtures.npz") + (load_pool(pools / "octaves_train.npz") if shipping else [])
    scores, share = load_pool(pools / "scores.npz"), 0.9 if shipping else options.real_share
    rate, warmup = (4e-4, 50) if shipping else (options.learning_rate, 150)
    torch.manual_seed(options.seed)
    network, last = begin(MT3(CONFIG)), folder / "last.pt"
    if options.init:
        network.load_state_dict(torch.load(options.init, weights_only=True)["average"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    average, step, spent = {name: value.clone() for name, value in network.state_dict().items()}, 0, 0.0
    if last.is_file():
        state = torch.load(last, weights_only=True)
        network.load_state_dict(state["raw"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, spent = state["average"], state["step"], state["seconds"]
    compiled = torch.compile(forward, dynamic=True) if options.compile else forward
    valid, rng = fixed(load_pool(pools / "octaves_valid.npz"), 64), np.random.default_rng([options.seed, step])
    begun, since, recent = time.time() - spent, time.time(), []
    for inputs, labels in batches(scores, real, share, options.batch, rng):
        spent = time.time() - begun
        done = spent / (60 * options.minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * (min(1, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * done)) + 0.01)
        with torch.autocast("cpu", torch.bfloat16):
            logits, guide = compiled(
                network, features(inputs), F.pad(labels[:, :-1].clamp(min=0), (1, 0)), event_frames(labels)
            )
        hard, loss = losses(logits, labels, 0.15)
        optimizer.zero_grad()
        (loss + 0.3 * guide[labels >= 0].mean()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        recent = [*recent[-99:], hard.item()]
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - min(0.998, step / (step + 10)))
        if time.time() - since > 300:
            report(folder, network, average, optimizer, step, spent, recent, valid)
            since = time.time()
    report(folder, network, average, optimizer, step, spent, recent, valid)


def report(folder, network, average, optimizer, step, spent, recent, valid) -> None:
    "A line of the log, and a checkpoint."
    raw = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(average)
    line = dict(
        step=step, seconds=round(spent), train_loss=round(float(np.mean(recent)), 4), octaves=score(network, *valid)
    )
    network.load_state_dict(raw)
    print(json.dumps(line), flush=True)
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    torch.save(
        dict(average=average, raw=raw, optimizer=optimizer.state_dict(), step=step, seconds=spent), folder / "part.pt"
    )
    os.replace(folder / "part.pt", folder / "last.pt")


# ---- the paper's study


class LowRank(torch.nn.Module):
    "A frozen linear layer with a correction of low rank (Hu et al. 2021)."

    def __init__(self, linear: torch.nn.Linear, rank: int = 8):
        super().__init__()
        self.linear = linear
        self.down = torch.nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.up = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return F.linear(x, self.linear.weight + 2 * self.up @ self.down)


def choose(network: MT3, way: str) -> list[torch.nn.Parameter]:
    "What is trained."
    network.requires_grad_(way in ("everything", "encoder", "more"))
    if way == "encoder":
        [part.requires_grad_(False) for part in (network.project, network.encoder, network.encoder_norm)]
    if way == "last":
        [part.requires_grad_(True) for part in (network.decoder[-1], network.decoder_norm, network.lm_head)]
    if way == "lora":
        for attention in [module for module in network.modules() if type(module).__name__ == "Attention"]:
            for name in "qkvo":
                setattr(attention, name, LowRank(getattr(attention, name)))
    return [weight for weight in network.parameters() if weight.requires_grad]


def study(options) -> None:
    """Epochs of 50 batches of 4, as the paper's; each epoch's loss, and the notes before, at the best and the last.
    More data: half of the segments come from mixtures of all kinds."""
    log = Path(options.output) / f"study_{options.way}_{options.learning_rate:g}_{options.seed}.json"
    if log.is_file():
        return print(f"{log.name} is there already")
    torch.manual_seed(options.seed)
    pools = Path(options.pools)
    pool = load_pool(pools / "octaves_train.npz")
    more = load_pool(pools / "mixtures.npz") if options.way == "more" else []
    valid, rng = fixed(load_pool(pools / "octaves_valid.npz"), 64), np.random.default_rng([options.seed, 1])
    others = fixed(load_pool(pools / "held_out.npz"), 64)
    network = MT3(CONFIG)
    network.load_state_dict(torch.load(options.init, weights_only=True)["average"])
    before, others_before, weights = score(network, *valid), score(network, *others), choose(network, options.way)
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    compiled = torch.compile(forward, dynamic=True) if options.compile else forward
    rows, best, start = [], (math.inf,), time.process_time()
    for epoch in range(options.epochs + 1):
        recent = []
        for _ in range(50 if epoch else 0):
            drawn = [more if more and rng.random() < 0.5 else pool for _ in range(4)]
            pairs = [segment(each[rng.integers(len(each))], rng) for each in drawn]
            recent.append(train_step(compiled, network, optimizer, weights, pairs))
        found = score_loss(compiled, network, *valid)
        rows.append(
            dict(
                epoch=epoch, train_loss=round(float(np.mean(recent)), 5) if recent else None, valid_loss=round(found, 5)
            )
        )
        print(json.dumps(rows[-1]), flush=True)
        if found < best[0]:
            best = found, epoch, {name: value.clone() for name, value in network.state_dict().items()}
    seconds = round(time.process_time() - start)
    at_last = score(network, *valid)
    network.load_state_dict(best[2])
    write_json(
        log,
        dict(
            way=options.way,
            learning_rate=options.learning_rate,
            seed=options.seed,
            trained_weights=sum(each.numel() for each in weights),
            cpu_seconds=seconds,
            best_epoch=best[1],
            best_valid_loss=round(best[0], 4),
            last_valid_loss=rows[-1]["valid_loss"],
            before=before,
            at_best=score(network, *valid),
            at_last=at_last,
            held_out_soundfont_all_kinds=dict(before=others_before, at_best=score(network, *others)),
            rows=rows,
            epochs=options.epochs,
            command=f"python benchmarks/mt3_posteriors.py study --init runs/mt3/last.pt --way {options.way} "
            f"--learning-rate {options.learning_rate:g} --epochs {options.epochs} --seed {options.seed}",
        ),
        indent=1,
    )


def train_step(forward, network: MT3, optimizer, weights: list, pairs: list) -> float:
    "One step on some segments; their loss."
    labels = labels_of([y[:LONGEST] for _, y in pairs])
    inputs = features(np.stack([x for x, _ in pairs]))
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = forward(network, inputs, F.pad(labels[:, :-1].clamp(min=0), (1, 0)), event_frames(labels))
    loss, _ = losses(logits, labels, 0.0)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def score_loss(forward, network: MT3, inputs: np.ndarray, targets: list) -> float:
    "Mean loss of a token, nats."
    total = count = 0
    order = np.argsort([len(each) for each in targets])
    for k in range(0, len(order), 16):
        labels = labels_of([targets[each] for each in order[k : k + 16]])
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = forward(
                network,
                features(inputs[order[k : k + 16]]),
                F.pad(labels[:, :-1].clamp(min=0), (1, 0)),
                event_frames(labels),
            )
        total, count = total + losses(logits, labels, 0.0)[0] * (labels >= 0).sum(), count + (labels >= 0).sum()
    return float(total / count)


def baselines(options) -> None:
    "What the study's fixed segments allow: the codec's ceiling, the frame-wise network's own notes, and chance."
    out, pools = {}, Path(options.pools)
    for name in ("octaves_valid", "held_out"):
        items, rng = load_pool(pools / f"{name}.npz"), np.random.default_rng(99)  # as `fixed` draws them
        played, written, picked = [], [], []
        for number in range(64):
            item = items[number % len(items)]
            frame = int(rng.integers(0, int(item["seconds"] * RATE) - SEGMENT - 1))
            written.append(target(item["parts"], frame))
            played += within(np.concatenate([np.c_[part[:, :3], np.full(len(part), PROGRAMS[k])]
                                             for k, part in enumerate(item["parts"])]), frame / RATE, number)
            table, who, _ = pick_notes(np.concatenate([window(item, frame), np.ones((1, 3, PITCHES, INPUT))]), RATE)
            table[:, :2] += (frame - CONTEXT) / RATE
            picked += within(np.c_[table[:, :3], np.array(PROGRAMS)[who]], frame / RATE, number)
        truth = read_notes(written)
        out[name] = {
            "the notes as written, against those played": compare(played, truth),
            "the frame-wise network's own notes": compare(truth, picked),
            "another segment's notes": compare(truth, read_notes(written[1:] + written[:1])),
        }
    write_json(Path(options.output) / "baselines.json", out, indent=1)


def within(notes: np.ndarray, start: float, number: int) -> list[Note]:
    "Notes (n, 4: onset s, offset s, pitch, program) that begin in a segment, as `read_notes` gives those of tokens."
    end = start + SEGMENT / RATE
    return sorted(
        Note(number * 100 + on - start, number * 100 + max(off, on + 0.01) - start, int(pitch), program=int(program))
        for on, off, pitch, program in notes.tolist()
        if start <= on < end and LOWEST_PITCH <= pitch < LOWEST_PITCH + PITCHES
    )


# ---- what comes of it


def export(options) -> None:
    "A folder for `instsep transcribe -n`, weights in 16 bits."
    from instsep.training.mt3 import save_network

    state = {name: value.clone() for name, value in torch.load(options.init, weights_only=True)["average"].items()}
    state["project.weight"] *= SCALE
    network = MT3(CONFIG)
    network.load_state_dict(state)
    save_network(network.half(), options.output)


def table(options) -> None:
    from instsep.metrics import format_table

    logs = sorted((LOGS / "mt3_posteriors").glob("study_*.json"))
    rows = [json.loads(path.read_text()) for path in logs]

    def row(each):
        best, last = each["at_best"], each["at_last"]
        return {
            "trained": each["way"],
            "learning rate": f"{each['learning_rate']:g}",
            "seed": each["seed"],
            "weights": each["trained_weights"],
            "lowest validation loss": f"{each['best_valid_loss']:.3f}",
            "at epoch": each["best_epoch"],
            "at the last": f"{each['last_valid_loss']:.3f}",
            "onset F1, best": f"{best['onset_f1']:.3f}",
            "by instrument": f"{best['instrument_onset_f1']:.3f}",
            "onset F1, last": f"{last['onset_f1']:.3f}",
            "false positives, negatives": f"{best['false_positives']}, {best['false_negatives']}",
        }

    write_text(RESULTS / "mt3_posteriors_study.md", format_table([row(each) for each in rows]) + "\n")


def main():
    parser = arguments(__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    commands = dict(
        pools=make_pools, train=train, ship=train, study=study, baselines=baselines, export=export, table=table
    )
    for name, run in commands.items():
        command = subparsers.add_parser(name)
        command.set_defaults(run=run)
        for flag, default, kind in (
            ("--pieces", "data/pieces.npz", str),
            ("--bank", "data/bank.safetensors", str),
            ("--pools", "data/mt3", str),
            ("--init", None, str),
            ("--scores", 20000, int),
            ("--mixtures", 1000, int),
            ("--minutes", 66.0, float),
            ("--batch", 32, int),
            ("--learning-rate", 1.5e-3, float),
            ("--real-share", 0.5, float),
            ("--seed", 0, int),
            ("--epochs", 50, int),
        ):
            command.add_argument(flag, default=default, type=kind)
        command.add_argument("-o", "--output", default="runs/mt3")
        command.add_argument("--way", default="everything", choices=["everything", "encoder", "last", "lora", "more"])
        command.add_argument("--compile", action="store_true", help="compile the network: faster after a minute")
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
