"""A finer grid of pitches, and training on detuned music: do they mend what twelve keys do to other tunings?

    OMP_NUM_THREADS=1 python benchmarks/pitch_grid.py --pieces pieces.npz --bank bank.safetensors --work runs/pitch_grid

A small frame-wise transcriber of pitches (not of instruments) is trained three times, from the same first weights, on
the same scores, players and steps, with one change a row; and all of it again for every seed (--seeds), which draws
other first weights, scores and players:

- *keys*: one output for each key, music in tune (as far as players are: 7 cents, standard deviation);
- *keys, detuned*: in every mixture each of the twelve pitch classes is moved by -50 to 50 cents of its own, the same
  for all players; a note has the name of the key that is nearest to where it sounds;
- *thirds, detuned*: three outputs to the semitone (`bins_per_semitone=3`), the same data. What is written lies at the
  mean of a bin and the two beside it, weighted by their probabilities.

Detuning is drawn without regard to any scale of the test. The test is that of `tunings.py`: passages of the test
split on recorded notes that are not in the note bank, in four tunings, as written and with the cents that
`measure_cents` adds. The threshold of each network is chosen on validation pieces, half of them in tune. Training is
kept every 50 steps in --work, so that a stopped run goes on; another process can do one row of one seed (--row).
Writes benchmarks/results/pitch_grid.json and .md.
"""
import json
import math
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from instsep.core import TRIO, atomic_path
from instsep.frames import find_offsets, pick_onsets
from instsep.harmonic import HarmonicLayer, log_bands
from instsep.metrics import format_table
from instsep.mixtures import Equaliser, Gain, Mixtures, WhiteNoise, balanced
from instsep.music.notes import Note, Transcription
from instsep.music.pieces import PieceBank
from instsep.separator import local_rms
from instsep.sound.notebank import NoteBank, render
from instsep.sound.soundfont import default_soundfont
from instsep.sound.spectral import stft
from instsep.tunings import SCALES, measure_cents, tune, with_cents
from common import PIECES, RESULTS, arguments, processor, write_json, write_results
from tunings import CONTROL, NOTES, RATE, REAL, TUNINGS, Players, excerpts, judged, tables_of, timed

LOWEST, KEYS, FINE = 33, 64, 3                       # MIDI number of A1; keys; bands and bins to the semitone
N_FFT, LONG, HOP, BINS, FRAMES = 2048, 8192, 512, 480, 4
OVERTONES = (1/3, 1/2, 2, 3, 4, 5)
SECONDS, BATCH, LEARNING_RATE = 6.0, 4, 3e-3
ROWS = {"keys": (1, False), "keys, detuned": (1, True), "thirds, detuned": (FINE, True)}  # bins a semitone, data
TESTS = (CONTROL, "twelve equal, A = 432 Hz", "Rast", "slendro, Kanjutmesem")
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
EXTRA = 5                                            # passages that tunings.py uses between those in all tunings


# ---- network

class PitchNetwork(nn.Module):
    "Logits of onset and frame for every bin of a pitch grid; bands with harmonic layers, one head for all pitches."
    def __init__(self, bins_per_semitone: int, width: int = 20, hidden: int = 14, mix_width: int = 8,
                 summary: int = 24, layers: int = 2, head: int = 48):
        super().__init__()
        self.step = FINE // bins_per_semitone        # bands from one output to the next
        lowest = 440 * 2 ** ((LOWEST - 2 / FINE - 69) / 12) * N_FFT / RATE                      # in bins
        self.register_buffer("bands", log_bands(BINS, 12 * FINE, lowest), False)
        self.register_buffer("long_bands", log_bands(BINS * LONG // N_FFT, 12 * FINE, lowest * LONG / N_FFT), False)
        self.input = nn.Linear(2 * FRAMES, width)
        self.trunk = nn.Sequential(*(HarmonicLayer(width, hidden, mix_width, summary, 12 * FINE, OVERTONES)
                                     for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, head), nn.GELU(),
                                  nn.Linear(head, 2 * FRAMES))
        nn.init.constant_(self.head[-1].bias, -4.0)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:  # (batch, samples) -> (batch, 2, bins, frames)
        short, long = (stft(waveform, size, HOP).abs() * (2 / size) for size in (N_FFT, LONG))
        loudness, frames = local_rms(short), short.shape[-1]
        def to_bands(x, matrix):                                                    # (batch, bands, steps, FRAMES)
            x = torch.log1p(100 * nn.functional.pad(x[:, :matrix.shape[1]] / loudness, (0, -frames % FRAMES)))
            return torch.einsum("bu,nuf->nbf", matrix, x).unflatten(2, (-1, FRAMES))
        y = torch.cat([to_bands(short, self.bands), to_bands(long, self.long_bands)], -1)
        y = self.trunk(self.input(y))                                               # (batch, bands, steps, width)
        y = torch.cat([y[:, k:k + KEYS * FINE] for k in range(3)], -1)              # with the bands beside it
        if self.step > 1: y = y[:, self.step // 2::self.step]
        y = self.head(y).unflatten(-1, (2, FRAMES))                                 # (batch, bins, steps, 2, FRAMES)
        return y.permute(0, 3, 1, 2, 4).flatten(3)[..., :frames]


def bin_pitches(bins_per_semitone: int) -> np.ndarray:  # (bins,) MIDI numbers
    "Where the outputs lie."
    step = 1 / bins_per_semitone
    return LOWEST - (bins_per_semitone // 2) * step + step * np.arange(KEYS * bins_per_semitone)


# ---- data

class Data:
    "Mixtures and what sounds in them; item `index` depends on (seed, index) and on whether pitch classes are moved."
    def __init__(self, pieces, bank: NoteBank, seed: int):
        self.bank = bank
        self.mixtures = Mixtures(pieces, None, balanced(bank), instruments=TRIO, sample_rate=RATE, seconds=SECONDS,
                                 other=0.0, seed=seed)
        self.mixtures.instances = {name: self.mixtures.instances[name] for name in TRIO}
        self.augmentation, self.seed = (Equaliser(0.5), Gain(), WhiteNoise()), seed

    def item(self, index: int, detuned: bool):  # -> (samples,), (notes, 3): onset s, offset s, MIDI pitch as it sounds
        score, random = self.mixtures.score(index), np.random.default_rng([self.seed, index, 1])
        moved = random.uniform(-50, 50, 12) * detuned
        stems, notes = np.zeros((len(TRIO) + 1, round(SECONDS * RATE)), np.float32), []
        for name, part in score.parts.items():
            cents = moved[part[:, 2].astype(int) % 12] + random.normal(0, 7) + random.normal(0, 3.5, len(part))
            stems[TRIO.index(name)] = render(self.bank, part, name, score.instances[name], seconds=SECONDS,
                                             detune=cents, shift=random.uniform(-2, 2),
                                             gain=10 ** (random.normal(0, 0.8, len(part)) / 20))
            notes.append(np.stack([part[:, 0], part[:, 1], part[:, 2] + cents / 100], 1))
        for transform in self.augmentation: stems = transform(stems, RATE, random)
        mixture = stems.sum(0)
        return (mixture / max(1.0, np.abs(mixture).max() / 0.95)).astype(np.float32), np.concatenate(notes)


def targets(notes: np.ndarray, bins_per_semitone: int, frames: int) -> np.ndarray:  # float32 (2, bins, frames)
    "A triangle around each onset, and 1 while a note is held, in the bin that is nearest."
    out, rate = np.zeros((2, KEYS * bins_per_semitone, frames), np.float32), RATE / HOP
    lowest = bin_pitches(bins_per_semitone)[0]
    for onset, offset, pitch in notes:
        row = round((pitch - lowest) * bins_per_semitone)
        if not 0 <= row < out.shape[1] or offset <= 0: continue
        first, last = max(0, math.ceil(onset * rate)), math.ceil(offset * rate)
        out[1, row, first:max(last, first + 1)] = 1
        near = np.arange(max(0, math.ceil(onset * rate - 2)), min(frames, math.floor(onset * rate + 2) + 1))
        if len(near): out[0, row, near] = np.maximum(out[0, row, near], 1 - np.abs(near - onset * rate) / 2)
    return out


# ---- training

def file_name(name: str, steps: int, seed: int) -> str:
    return f"{name.replace(', ', '_')}_{steps}" + (f"_{seed}" if seed else "")


def train(name: str, data: Data, steps: int, work: Path, seed: int) -> tuple[PitchNetwork, dict]:
    "The trained network of a row, and its log; goes on from what is kept in `work`."
    bins_per_semitone, detuned = ROWS[name]
    torch.manual_seed(seed)
    network = PitchNetwork(bins_per_semitone)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    rate = lambda step: min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))
    kept, log = work / f"{file_name(name, steps, seed)}.pt", dict(step=0, cpu_seconds=0.0, losses=[])
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        network.load_state_dict(state["network"]), optimizer.load_state_dict(state["optimizer"])
        log = json.loads(state["log"])
    begun, spent, recent = time.process_time(), log["cpu_seconds"], []
    for step in range(log["step"], steps):
        items = [data.item(BATCH * step + k, detuned) for k in range(BATCH)]
        mixture = torch.from_numpy(np.stack([sound for sound, _ in items]))
        for group in optimizer.param_groups: group["lr"] = LEARNING_RATE * rate(step)
        with torch.autocast("cpu", torch.bfloat16): logits = network(mixture)
        logits = logits.float()
        wanted = torch.from_numpy(np.stack([targets(n, bins_per_semitone, logits.shape[-1]) for _, n in items]))
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(2).mean((0, 2))
        loss = 2 * entropy[0] + entropy[1]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            log |= dict(step=step + 1, cpu_seconds=round(spent + time.process_time() - begun, 1),
                        losses=[*log["losses"], [step + 1, round(float(np.mean(recent)), 3)]])
            recent = []
            with atomic_path(kept) as path:
                torch.save(dict(network=network.state_dict(), optimizer=optimizer.state_dict(), log=json.dumps(log)),
                           path)
            print(name, log["step"], log["losses"][-1][1], f"{log['cpu_seconds']:.0f} s", flush=True)
    return network.eval(), log | dict(parameters=sum(p.numel() for p in network.parameters()))


# ---- notes

@torch.inference_mode()
def posteriors(network: PitchNetwork, sound: np.ndarray) -> np.ndarray:  # (samples,) -> (2, bins, frames)
    with torch.autocast("cpu", torch.bfloat16): logits = network(torch.from_numpy(sound)[None])
    return logits[0].float().sigmoid().numpy()


def notes_of(probability: np.ndarray, bins_per_semitone: int, threshold: float) -> Transcription:
    "Peaks of the onsets in time and, where the grid is finer than keys, in pitch; cents are those of the grid."
    onset, frame, places = *probability, bin_pitches(bins_per_semitone)
    if bins_per_semitone > 1:
        beside = lambda x: np.stack([np.pad(x, ((1, 1), (0, 0)))[k:k + len(x)] for k in range(3)])  # (3, bins, frames)
        near = beside(onset)
        places = places[:, None] + (near[2] - near[0]) / np.maximum(near.sum(0), 1e-9) / bins_per_semitone
        onset = np.where(onset >= near.max(0), np.minimum(near.sum(0), 1), 0)
        frame = np.minimum(beside(frame).sum(0), 1)
    else: places = np.broadcast_to(places[:, None], onset.shape)
    row, at, later = pick_onsets(onset, threshold)
    pitch, height, begin = places[row, at], onset[row, at], at + later
    end = find_offsets(row, begin, frame >= 0.4)
    order, kept = np.argsort(-height), []
    for k in order:                                  # one tone in bins side by side: the surer one
        if not any(abs(pitch[k] - pitch[j]) < 0.7 and abs(begin[k] - begin[j]) < 3 for j in kept) or \
                bins_per_semitone == 1: kept.append(k)
    kept, seconds = sorted(kept, key=lambda k: begin[k]), HOP / RATE
    notes = [Note(max(0.0, begin[k] * seconds), max(0.03, end[k] * seconds), round(pitch[k]), 80) for k in kept]
    cents = [100 * (pitch[k] - round(pitch[k])) for k in kept]
    return Transcription(notes, height[kept], cents=cents)


def best_threshold(network: PitchNetwork, bins_per_semitone: int, data: Data, count: int = 24) -> tuple[float, dict]:
    "The threshold with the best mean onset F1 on validation mixtures, half of them in tune."
    scores = {threshold: [] for threshold in THRESHOLDS}
    for index in range(count):
        sound, notes = data.item(index, index % 2 == 1)
        inside = notes[(notes[:, 0] > 0.05) & (notes[:, 0] < SECONDS - 0.1)]
        truth = Transcription([Note(on, max(off, on + 0.01), round(p), 80) for on, off, p in inside],
                              cents=[100 * (p - round(p)) for p in inside[:, 2]])
        found = posteriors(network, sound)
        for threshold in THRESHOLDS:
            scores[threshold].append(judged(truth, notes_of(found, bins_per_semitone, threshold))["f1"])
    means = {threshold: round(float(np.mean(f1)), 3) for threshold, f1 in scores.items()}
    return max(means, key=means.get), means


# ---- the run

def look(name: str, network: PitchNetwork, threshold: float, mixture: np.ndarray, truth: Transcription) -> dict:
    "What a network writes of a passage, as it is and with measured cents, and its processor seconds."
    written, cpu = timed(lambda: notes_of(posteriors(network, mixture), ROWS[name][0], threshold))
    bare = Transcription(list(written), written.confidence)
    measured = with_cents(bare, *measure_cents(mixture, bare, RATE))
    return dict(cpu=cpu, answers={name: judged(truth, written), f"{name}, measured cents": judged(truth, measured)})


def test(name: str, network: PitchNetwork, valid: Data, passages: list, players: Players, kept: Path) -> dict:
    "Threshold and answers of one network; kept in a file beside its weights."
    if kept.is_file(): return json.loads(kept.read_text())
    threshold, tried = best_threshold(network, ROWS[name][0], valid)
    print(name, "threshold", threshold, tried, flush=True)
    found = []
    for piece, notes, seconds in passages:
        for tuning in TESTS:
            scale, tonic, a4 = TUNINGS[tuning]
            truth = tune(notes, SCALES[scale], tonic=tonic, a4=a4)
            found.append(dict(piece=piece, tuning=tuning)
                         | look(name, network, threshold, players(truth, seconds, REAL).sum(0), truth))
    out = dict(threshold=threshold, validation_f1=tried, found=found)
    write_json(kept, out)
    return out


def report(result: dict) -> str:
    several = len(result["seeds"]) > 1
    spread = lambda one: f" ± {np.std(one['f1_of_seeds'], ddof=1):.2f}" if several else ""
    cell = lambda one: f"{one['f1']:.2f}{spread(one)}, {one['median']:.0f}, {100 * one['within_15']:.0f} %"
    rows = []
    for name, row in result["rows"].items():
        for shown, cost in ((name, f"{row['cpu_seconds'] / 60:.1f}"), (f"{name}, measured cents", "")):
            rows.append({"network": shown, "outputs": row["outputs"] if cost else "", "trained (core minutes)": cost,
                         "CPU s a second": f"{row['cpu']:.3f}" if cost else ""}
                        | {tuning: cell(result["tunings"][tuning]["systems"][shown]) for tuning in TESTS})
    return f"""# A finer grid of pitches, and training on detuned music

`{result['command']}`

A transcriber of pitches of {result['parameters'] / 1000:.0f} thousand weights, trained for {result['steps']} steps of \
{BATCH} mixtures of {SECONDS:g} s ({result['hours']:.1f} h), one change a row; seeds: \
{', '.join(map(str, result['seeds']))}. Tested on {result['pieces']} passages \
of {result['seconds']:g} s, as in `tunings.md`. In each cell: onset F1 (a note within 70 cents counts; ± the standard \
deviation over the seeds), how far what is written lies from what sounds (median, cents), how many of the found notes \
are within 15 cents.

{format_table(rows)}

{result['machine']}
"""


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank (instsep pieces)")
    parser.add_argument("--bank", default="data/bank.safetensors", help="a note bank (instsep notebank)")
    parser.add_argument("--notes", default=NOTES, help="folder of recorded notes, for the test")
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--count", type=int, default=8, help="passages of the test")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a passage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--row", choices=list(ROWS), help="only train and test this one, for another process to go on")
    parser.add_argument("--work", default="runs/pitch_grid", help="folder of checkpoints")
    parser.add_argument("--name", default="pitch_grid")
    args = parser.parse_args()
    torch.set_num_threads(1)
    work, split = Path(args.work), PieceBank.load(args.pieces).split()
    work.mkdir(parents=True, exist_ok=True)
    bank = NoteBank.load(args.bank)
    players, passages, rows = Players(args.notes, default_soundfont()), [], {}
    source = excerpts(split["test"], args.seconds, 21, set())
    for _ in range(args.count):
        passages.append((*next(source), args.seconds))
        for _ in range(EXTRA): next(source)
    answers = {}                                     # (piece, tuning, seed) -> system -> what `judged` says
    for seed, (name, (bins_per_semitone, detuned)) in product(args.seeds, ROWS.items()):
        if args.row not in (None, name): continue
        data, valid = (Data(split[part], bank, number + 10 * seed) for part, number in (("train", 61), ("valid", 62)))
        network, log = train(name, data, args.steps, work, seed)
        tested = test(name, network, valid, passages, players, work / f"{file_name(name, args.steps, seed)}.json")
        for one in tested["found"]: answers.setdefault((one["piece"], one["tuning"], seed), {}).update(one["answers"])
        row = rows.setdefault(name, dict(bins_per_semitone=bins_per_semitone, detuned=detuned, seeds=[],
                                         outputs=KEYS * bins_per_semitone))
        row["seeds"].append(log | dict(seed=seed, threshold=tested["threshold"], validation_f1=tested["validation_f1"],
                                       cpu=float(np.mean([one["cpu"] for one in tested["found"]])) / args.seconds))
    if args.row: return
    for row in rows.values():
        row |= {what: float(np.mean([one[what] for one in row["seeds"]])) for what in ("cpu_seconds", "cpu")}
    found = [dict(piece=f"{piece}, seed {seed}", tuning=tuning, seed=seed, answers=own)
             for (piece, tuning, seed), own in answers.items()]
    systems = [shown for name in ROWS for shown in (name, f"{name}, measured cents")]
    tables = tables_of(found, systems)
    for seed in args.seeds:
        for tuning, table in tables_of([one for one in found if one["seed"] == seed], systems).items():
            for system, of in table["systems"].items():
                for what in ("f1", "median"):
                    tables[tuning]["systems"][system].setdefault(f"{what}_of_seeds", []).append(of[what])
    result = dict(command=f"python benchmarks/pitch_grid.py --pieces pieces.npz --bank bank.safetensors --steps "
                          f"{args.steps} --count {args.count} --seconds {args.seconds:g} --seeds "
                          f"{' '.join(map(str, args.seeds))}",
                  what="no shipped weights: each network is trained here", steps=args.steps, seeds=args.seeds,
                  hours=args.steps * BATCH * SECONDS / 3600, seconds=args.seconds, pieces=args.count,
                  bank=str(bank), instances={name: sorted({i.split('/')[0] for i in bank.of(name)}) for name in TRIO},
                  parameters=rows["keys"]["seeds"][0]["parameters"], rows=rows, tunings=tables,
                  machine=f"{processor()}, torch {torch.__version__}, one thread, products in bf16")
    write_results(RESULTS / args.name, report(result), result)


if __name__ == "__main__": main()
