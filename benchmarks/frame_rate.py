"""Do posteriors every 12 ms find more than every 23 ms? One change a row, three seeds, equal processor time.

    python benchmarks/frame_rate.py pool --pieces data/pieces.npz --bank data/bank.safetensors --pools data/frames
    python benchmarks/frame_rate.py run --pools data/frames --row "12 ms" --seed 0
    python benchmarks/frame_rate.py table

The trunk of trio-notes stays as it is, a step every 46 ms; its last harmonic layer and its head are trained on, by the
loss that they were trained with. At 23 ms the head gives two frames a step, as it ships; at 12 ms four, each pair of
which begins as one of those. An onset's triangle reaches two frames either way: in *12 ms* half as far in seconds; in
*12 ms, triangles as wide* it stays 46 ms. In *level as a second input* the last layer is also given how loud the
recording is at each step, in decibels of full scale: the trunk sees it divided by its RMS over 4 s. `pool` writes what
the last layer reads, once for all rows. Scored on validation pieces on a soundfont that no training heard, and on one
key struck 8 and 12 times a second there, at two velocities in turns. A run whose log is there is not repeated.
"""
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import LOGS, RESULTS, exact_mixtures, read_json, test_soundfonts, write_json, write_text
from mt3_ablations import command_line, over_seeds
from mt3_joint import LastLayer
from instsep.core import TRIO
from instsep.frames import OUTPUT_HEADS, FrameTranscriber, note_targets, pick_notes
from instsep.metrics import format_table, match_notes
from instsep.mixtures import INSTRUMENTS, Mixtures, balanced
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.sound.audio import resample
from instsep.sound.notebank import NoteBank
from instsep.sound.soundfont import synthesize
from instsep.training.frames import notes_loss
from instsep.training.performance import PERFORMED_AUGMENTATION, expressive_player, humanize_phrases

ROWS = {
    "as it ships": None,                        # finer, and how many frames a triangle reaches
    "23 ms": (1, 2.0),
    "12 ms": (2, 2.0),
    "12 ms, triangles as wide": (2, 4.0),
    "23 ms, level as a second input": (1, 2.0),
}
LEVEL = "23 ms, level as a second input"
HOP, RATE = 512, 22050 / 512                    # samples; frames a second
SECONDS, BATCH, LEARNING_RATE, AVERAGE = 6.0, 4, 3e-4, 0.99
PROGRAMS = [INSTRUMENTS[name].programs[0] for name in TRIO]


# ---- data

def repeated(font, per_second: float):
    "One key struck over and over for three seconds: sound (samples,) and its notes."
    for name, pitches in (("piano", (48, 60, 67, 72, 79)), ("guitar", (45, 52, 60, 67)),
                          ("clarinet", (55, 62, 67, 72, 76))):
        for pitch in pitches:
            program = INSTRUMENTS[name].programs[0]
            notes = [Note(0.5 + k / per_second, 0.5 + (k + 0.9) / per_second, pitch, 80 + 20 * (k % 2), program)
                     for k in range(int(3 * per_second))]
            yield resample(synthesize(notes, font).mean(0, keepdims=True), 44100, 22050)[0], notes


def parts_of(notes: list[Note]) -> list[np.ndarray]:
    return [np.array([(n.onset, n.offset, n.pitch, n.velocity) for n in notes if n.program == program]).reshape(-1, 4)
            for program in PROGRAMS]


def level_of(sound: np.ndarray, steps: int) -> np.ndarray:  # (steps,)
    "RMS of each step in decibels of full scale, over 20; -4 for silence."
    padded = np.pad(np.float32(sound), (0, max(0, 2 * HOP * steps - len(sound))))[:2 * HOP * steps]
    return np.log10(np.sqrt(np.mean(padded.reshape(steps, -1) ** 2, 1)) + 1e-4).astype(np.float32)


def of_mixtures(mixtures: Mixtures, count: int):
    for number in range(count):
        score, stems = mixtures.item(number)
        others = [part for name, part in score.parts.items() if name not in TRIO]
        none = np.zeros((0, 4))
        yield stems.sum(0), [*(score.parts.get(name, none) for name in TRIO), np.concatenate([none, *others])]


def make_pool(options) -> None:
    "What the last layer reads of mixtures to train on and of those that score."
    pools, transcriber = Path(options.pools), FrameTranscriber.from_pretrained()
    pools.mkdir(parents=True, exist_ok=True)
    pieces, bank = PieceBank.load(options.pieces).split(), NoteBank.load(options.bank)
    (_, font), *_ = test_soundfonts()
    model, below = transcriber.network, []
    layer = model.network.pitch_layers[-1]
    layer.register_forward_pre_hook(lambda _, inputs: below.append(inputs[0][0].half().numpy()))
    training = Mixtures(pieces["train"], expressive_player(bank), balanced(bank), instruments=TRIO, sample_rate=22050,
                        seconds=SECONDS, seed=31, absent=0.25, other=0.35, performance=humanize_phrases,
                        augmentation=PERFORMED_AUGMENTATION)
    held_out = exact_mixtures(font, pieces["valid"], sample_rate=22050, other=0.0, seed=32)
    sets = dict(training=of_mixtures(training, options.mixtures), held_out=of_mixtures(held_out, 40))
    for rate in (8, 12): sets[f"repeated_{rate}"] = ((x, parts_of(notes)) for x, notes in repeated(font, rate))
    for name, items in sets.items():
        below.clear()
        saved = {}
        for number, (sound, parts) in enumerate(items):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                model(torch.from_numpy(np.float32(sound))[None])
            saved[f"{number:04d}.frames"] = 1 + -(-len(sound) // HOP)
            saved |= {f"{number:04d}.{k}": part for k, part in enumerate(parts)}
            saved[f"{number:04d}.level"] = level_of(sound, below[-1].shape[1])
        steps = max(len(each[0]) for each in below)
        np.save(pools / f"{name}.npy",
                np.stack([np.pad(each, ((0, 0), (0, steps - len(each[0])), (0, 0))) for each in below]))
        np.savez(pools / f"{name}.npz", **saved)
        print(f"{name}: {len(below)}", flush=True)


def load(pools: Path, name: str) -> list[dict]:
    with np.load(pools / f"{name}.npz") as saved: held = {key: saved[key] for key in saved.files}
    return [dict(below=below, frames=int(held[f"{number:04d}.frames"]), level=held.get(f"{number:04d}.level"),
                 parts=[held[f"{number:04d}.{k}"] for k in range(4) if f"{number:04d}.{k}" in held])
            for number, below in enumerate(np.load(pools / f"{name}.npy", mmap_mode="r"))]


# ---- the network, and what it finds

class WithLevel(nn.Module):
    "A last layer that is also given the level at each step, at first with no effect."
    def __init__(self, last: LastLayer):
        super().__init__()
        self.last, self.posteriors = last, last.posteriors
        self.level = nn.Linear(1, last.layer.mix_norm.normalized_shape[0])
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)

    def forward(self, below: torch.Tensor, frames: int, level: torch.Tensor) -> torch.Tensor:
        return self.last(below + self.level(level[..., None])[:, None], frames)


def finer(last: LastLayer, times: int) -> LastLayer:
    "Its head gives so many frames for one, at first all the same."
    linear = last.head[-1] if isinstance(last.head, nn.Sequential) else last.head
    with torch.no_grad():
        for name in ("weight", "bias"):
            each = getattr(linear, name).unflatten(0, (len(OUTPUT_HEADS), last.instruments, last.per_step))
            setattr(linear, name, nn.Parameter(each.repeat_interleave(times, 2).flatten(0, 2)))
    linear.out_features *= times
    last.per_step *= times
    return last


def correlation(pairs: list[tuple[int, int]]) -> float:  # nan where there is nothing to correlate
    if len(pairs) < 3 or not np.ptp(pairs, axis=0).all(): return math.nan
    return float(np.corrcoef(np.array(pairs, float).T)[0, 1])


def padded_level(item: dict) -> np.ndarray:  # as many steps as a pool's longest recording has
    return np.pad(item["level"], (0, item["below"].shape[1] - len(item["level"])), constant_values=-4)


def f1(reference: list[Note], estimate: list[Note], **options) -> float:
    return round(2 * len(match_notes(reference, estimate, **options)) / max(1, len(reference) + len(estimate)), 4)


@torch.no_grad()
def score(last: LastLayer | WithLevel, times: int, pools: Path) -> dict:
    out, pick = {}, FrameTranscriber.from_pretrained().pick
    for name in ("held_out", "repeated_8", "repeated_12"):
        reference, estimate = [], []
        for number, item in enumerate(load(pools, name)):
            below = torch.from_numpy(np.float32(item["below"]))[None]
            extra = () if isinstance(last, LastLayer) else (torch.from_numpy(padded_level(item))[None],)
            logits = last(below, times * item["frames"], *extra)
            posteriors = torch.cat([last.posteriors(logits), logits[:, 2:, :-1].sigmoid()], 1)[0].numpy()
            table, who, _ = pick_notes(posteriors, times * RATE, config=pick)
            for notes, rows in ((reference, [(*row, k) for k, part in enumerate(item["parts"][:3]) for row in part]),
                                (estimate, [(*row, k) for row, k in zip(table.tolist(), who)])):
                notes += [Note(100 * number + on, 100 * number + max(off, on + 0.01), int(pitch),
                               int(np.clip(v, 1, 127)), PROGRAMS[int(k)])
                          for on, off, pitch, v, k in rows if 0 <= on < item["frames"] / RATE - 0.02]
        onsets = dict(offset_ratio=None)
        pairs = match_notes(reference, estimate, onset_tolerance=0.05, **onsets)
        followed = [correlation([(reference[i].velocity, estimate[j].velocity) for i, j in pairs
                                 if reference[i].onset // 100 == number]) for number in range(number + 1)]
        out[name] = dict(
            notes=len(reference), velocity_r=round(float(np.nanmean(followed)), 4),
            onset_f1=f1(reference, estimate, **onsets),
            onset_f1_20_ms=f1(reference, estimate, onset_tolerance=0.02, **onsets),
            instrument_onset_f1=f1(reference, estimate, instrument=lambda note: note.program, **onsets),
            onset_offset_f1=f1(reference, estimate), found=round(len(pairs) / len(reference), 4),
            false=len(estimate) - len(pairs),
            median_error_ms=round(1000 * float(np.median([abs(reference[i].onset - estimate[j].onset)
                                                          for i, j in pairs])), 2))
    return out


def run(options) -> None:
    "Train a row for so many processor seconds, and score it."
    log = Path(options.output) / f"{options.row.replace(', ', '_').replace(' ', '_')}_{options.seed}.json"
    if log.is_file(): return print(f"{log.name} is there already")
    pools, rng, row = Path(options.pools), np.random.default_rng([options.seed, 7]), ROWS[options.row]
    torch.manual_seed(options.seed)
    last, items = LastLayer(FrameTranscriber.from_pretrained()), load(pools, "training")
    times, width = row or (1, 2.0)
    if times > 1: finer(last, times)
    if options.row == LEVEL: last = WithLevel(last)
    optimizer = torch.optim.AdamW(last.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    average = {name: value.clone() for name, value in last.state_dict().items()}
    step, spent, recent = 0, 0.0, []
    while row and spent < options.seconds:
        began = time.process_time()
        cosine = 0.5 + 0.5 * math.cos(math.pi * spent / options.seconds)
        for each in optimizer.param_groups: each["lr"] = LEARNING_RATE * min(1, (step + 1) / 30) * cosine
        drawn = [items[k] for k in rng.integers(len(items), size=BATCH)]
        frames = times * drawn[0]["frames"]
        targets = np.stack([note_targets(item["parts"], frames, times * RATE, width=width) for item in drawn])
        extra = [torch.from_numpy(np.stack([padded_level(item) for item in drawn]))] if options.row == LEVEL else []
        logits = last(torch.from_numpy(np.stack([item["below"] for item in drawn]).astype(np.float32)), frames, *extra)
        loss = notes_loss(logits, torch.from_numpy(targets))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(last.parameters(), 1.0)
        optimizer.step()
        step, recent = step + 1, [*recent[-99:], loss.item()]
        with torch.no_grad():
            for name, value in last.state_dict().items():
                average[name].lerp_(value, 1 - min(AVERAGE, step / (step + 10)))
        spent += time.process_time() - began
        if step % 50 == 0: print(f"{step} steps, {spent:.0f} s, loss {np.mean(recent):.4f}", flush=True)
    last.load_state_dict(average)
    write_json(log, dict(
        row=options.row, seed=options.seed, steps=step,
        train_loss=round(float(np.mean(recent)), 4) if recent else None, after=score(last, times, pools),
        command=f'python benchmarks/frame_rate.py run --row "{options.row}" --seed {options.seed} '
                f"--seconds {options.seconds:g}"), indent=1)


def table(options) -> None:
    runs: dict[str, list] = {}
    for path in sorted(Path(options.output).glob("*.json")):
        each = read_json(path)
        runs.setdefault(each["row"], []).append(each)

    def line(name: str) -> dict:
        after = [each["after"] for each in runs[name]]
        values = lambda which, key: over_seeds([each[which][key] for each in after])
        steps = round(np.mean([each["steps"] for each in runs[name]]))
        return {"posteriors": name, "seeds": len(after), "steps": steps,
                "onset F1": values("held_out", "onset_f1"), "within 20 ms": values("held_out", "onset_f1_20_ms"),
                "by instrument": values("held_out", "instrument_onset_f1"),
                "onset+offset F1": values("held_out", "onset_offset_f1"),
                "median error, ms": values("held_out", "median_error_ms"),
                "8 a second, velocity r": values("repeated_8", "velocity_r") if all(
                    "velocity_r" in each["repeated_8"] for each in after) else "",
                "8 a second, found": values("repeated_8", "found"), "8 a second, F1": values("repeated_8", "onset_f1"),
                "12 a second, found": values("repeated_12", "found"),
                "12 a second, F1": values("repeated_12", "onset_f1")}

    write_text(RESULTS / "frame_rate.md", f"""# Posteriors every 12 ms

`{runs["12 ms"][0]["command"]}`, and so on. Mean over seeds ± half of their range; the last harmonic layer and the head
of trio-notes trained on for equal processor time, the trunk below as it ships. 40 mixtures of validation pieces on a
soundfont that no training heard, and 14 keys there struck over and over for three seconds. Notes are picked with the
thresholds that ship in all rows; at 12 ms they were not looked for again.

{format_table([line(name) for name in ROWS if name in runs])}
""")


def main():
    commands = dict(pool=make_pool, run=run, table=table)
    parser, each = command_line(__doc__, commands, ROWS, "12 ms", mixtures=400, seconds=180.0)
    for one in each: one.set_defaults(pools="data/frames", output=str(LOGS / "frame_rate"))
    torch.set_num_threads(1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__": main()
