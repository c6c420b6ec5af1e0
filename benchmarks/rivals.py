"""Other networks, and one change at a time to instsep's: the same data, the same seed, the same processor time for
each.

    OMP_NUM_THREADS=1 python benchmarks/rivals.py --bank train_bank.safetensors --seconds 120

Excerpts of training pieces are rendered once, to --cache, which all rows share: once dry, once in rooms, once on a
single soundfont. Every row draws from them the same crops and mixes in the same order (half of the examples keep the
stems of an item together, the other half take each stem from another item) and trains on one thread until
`--seconds` of processor time are spent, the assembling of batches not counted. Each is then scored on mixtures of
pieces not trained on, as `benchmarks/separation.py` makes them (22050 Hz, 6 s), on a soundfont seen in training, on
a held-out one, in rooms, and on the recordings R01 to R04, if they are there. The bank is a `NoteBank` at 22050 Hz,
see `instsep.sound.notebank`.

Results go to benchmarks/results/rivals.json and .md. A row that is in the JSON already is left as it is, so a run
that was cut off goes on where it stopped; `--only NAME ...` chooses rows, `--list` names them, `--table` writes the
table again. Rows that differ only in which weights are scored, the last or the averaged ones, share one training and
are made together.

An honest budget is twenty minutes a row, with learning curves, in steps that can be killed at any time:

    OMP_NUM_THREADS=1 python benchmarks/rivals.py --bank train_bank.safetensors --seconds 1200 --marks 2 5 10 20 \
        --checkpoints data/rivals_runs --name rivals_twenty_minutes

At the marks (minutes of processor time) the averaged weights are scored; checkpoints are written there and every two
minutes.

On a GPU the budget is a number of updates, the same for every row; marks are updates, too. `--render` makes what the
rows share and ends; then several processes may take a part of the rows each, and write into one result:

    python benchmarks/rivals.py --bank train_bank.safetensors --items 8000 --workers 16 --device cuda --steps 1500 \
        --batch 16 --marks 150 500 --name rivals_gpu --only HarmonicRNN MMDenseNet --render

and the same without `--render`. `--deadline` (seconds since 1970) stops the row at hand, which keeps its marks.
`--costs`, run later on a processor core, adds what rows made on a GPU lack: multiply-adds and processor seconds.
"""
import json
import math
import multiprocessing
import time
import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from instsep import __version__
from instsep.sound.audio import resample
from instsep.core import atomic_path
from instsep.metrics import format_table, stem_scores
from instsep.mixtures import TRIO, Equaliser, Gain, Mixtures, Room, WhiteNoise, balanced, bank_player
from instsep.sound.notebank import NoteBank
from instsep.music.pieces import PieceBank
from instsep.harmonic import HarmonicRNN
from instsep.separator import Separator, SeparatorConfig, local_rms
from instsep.inference.registry import network
from instsep.sound.spectral import _extend, istft, oracle
from instsep.training.separator import SeparatorModule, TrainConfig, spectral_loss
from common import (HELD_OUT_SOUNDFONT, PIECES, RECORDINGS, RESULTS, SEEN_SOUNDFONT, TRIOS, alone, arguments, cpu_time,
                    processor, read_json, recordings,
                    test_soundfonts, write_json, write_text)
from separation import soundfont_items

RATE, SECONDS, BATCH, LEARNING_RATE, SEED = 22050, 4.0, 2, 2e-3, 0
ITEMS, ITEM_SECONDS, TEST_SECONDS = 300, 8.0, 6.0
STEMS = (*TRIO, "other")
SETS = ("seen soundfont", "held-out soundfont", "recordings", "seen, in rooms")
CACHES = ("rooms", "dry", "one")
# others: 1
WEIGHTS = dict(FluidR3_GM=1.5, MuseScore_General=1.5, vsco_and_others=1.2, salamander=1.2, freesound_allan764=0.8,
               invented=1.0) | {HELD_OUT_SOUNDFONT: 0.0}


# ---- networks of others: magnitudes to masks, or, where `takes` is "waveform", waveforms to waveforms

@network
class OpenUnmix(nn.Module):
    "The network of the package openunmix (Stöter et al. 2019), one for every stem as there; here trained together."
    def __init__(self, stems: int, hidden: int = 512, bins: int = 1025, max_bin: int = 768):
        super().__init__()
        from openunmix.model import OpenUnmix as Original
        self.max_bin = max_bin
        self.each = nn.ModuleList(Original(nb_bins=bins, nb_channels=1, hidden_size=hidden, max_bin=max_bin)
                                  for _ in range(stems))

    def prepare(self, magnitudes):  # (any, bins, frames) of mixtures
        "Mean and deviation of every bin over the data, from which its first layer starts."
        mean, deviation = (f((0, 2))[:self.max_bin] for f in (magnitudes.mean, magnitudes.std))
        for one in self.each:
            one.input_mean.data, one.input_scale.data = -mean, 1 / deviation.clamp_min(1e-4 * deviation.max())

    def forward(self, magnitude):  # (batch, bins, frames) -> (batch, stems, bins, frames)
        magnitude = magnitude.clamp_min(1e-8)
        return torch.stack([one(magnitude.unsqueeze(1))[:, 0] for one in self.each], 1) / magnitude.unsqueeze(1)


@network
class WaveUNet(nn.Module):
    """Waveforms to waveforms: convolutions, every second sample dropped; linear interpolation back (Stoller et al.
    2018)."""
    takes = "waveform"

    def __init__(self, stems: int, levels: int = 10, growth: int = 12, down: int = 15, up: int = 5):
        super().__init__()
        widths = [growth * (k + 1) for k in range(levels + 1)]
        layer = lambda a, b, size: nn.Sequential(nn.Conv1d(a, b, size, padding=size // 2), nn.LeakyReLU(0.2))
        self.levels = levels
        self.down = nn.ModuleList(layer(a, b, down) for a, b in zip([1, *widths], widths[:-1]))
        self.bottom = layer(widths[-2], widths[-1], down)
        self.up = nn.ModuleList(layer(widths[k + 1] + widths[k], widths[k], up) for k in reversed(range(levels)))
        self.last = nn.Conv1d(widths[0] + 1, stems - 1, 1)

    def forward(self, mixture):  # (batch, samples) -> (batch, stems, samples); the last is what the others leave
        samples, skips = mixture.shape[-1], []
        x = whole = nn.functional.pad(mixture, (0, -samples % 2 ** self.levels)).unsqueeze(1)    # (batch, 1, samples)
        for down in self.down:
            skips.append(down(x))
            x = skips[-1][..., ::2]                                             # (batch, channels, samples / 2 ** k)
        x = self.bottom(x)
        for up in self.up:
            x = nn.functional.interpolate(x, scale_factor=2, mode="linear", align_corners=False)
            x = up(torch.cat([x, skips.pop()], 1))
        found = self.last(torch.cat([x, whole], 1))                             # (batch, stems - 1, samples)
        return torch.cat([found, whole - found.sum(1, keepdim=True)], 1)[..., :samples]


class DenseBlock(nn.Module):
    "Convolutions that each take the output of all before them; gives what the layers added."
    def __init__(self, inputs: int, growth: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inputs + k * growth), nn.ReLU(),
                          nn.Conv2d(inputs + k * growth, growth, 3, padding=1))
            for k in range(layers))
        self.outputs = growth * layers

    def forward(self, x):  # (batch, channels, bins, frames) -> (batch, growth * layers, bins, frames)
        added = []
        for layer in self.layers:
            added.append(layer(x))
            x = torch.cat([x, added[-1]], 1)
        return torch.cat(added, 1)


class DenseUNet(nn.Module):
    "Dense blocks on the way down and up, with skip connections: one band of MMDenseNet."
    def __init__(self, inputs: int, growth: int, layers: int, scales: int):
        super().__init__()
        self.first = nn.Conv2d(1, inputs, 3, padding=1)
        self.down, self.rise, self.up, skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), []
        channels = inputs
        for _ in range(scales):
            self.down.append(DenseBlock(channels, growth, layers))
            skips.append(self.down[-1].outputs)
            channels = skips[-1]
        self.bottom = DenseBlock(channels, growth, layers)
        for skip in reversed(skips):
            self.rise.append(nn.ConvTranspose2d(self.bottom.outputs, self.bottom.outputs, 2, stride=2))
            self.up.append(DenseBlock(self.bottom.outputs + skip, growth, layers))
        self.outputs = self.bottom.outputs

    def forward(self, x):  # (batch, 1, bins, frames) -> (batch, outputs, bins, frames)
        x, skips = self.first(x.contiguous(memory_format=torch.channels_last)), []
        for down in self.down:
            skips.append(down(x))
            x = nn.functional.avg_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for rise, up in zip(self.rise, self.up): x = up(torch.cat([rise(x), skips.pop()], 1))
        return x


@network
class MMDenseNet(nn.Module):
    """Dense blocks at several scales, for the lower half, the upper half and all of the spectrum (Takahashi and
    Mitsufuji 2017)."""
    def __init__(self, stems: int, bins: int = 768, growth: tuple[int, ...] = (8, 3, 4), layers: int = 3,
                 scales: int = 3):
        super().__init__()
        self.bins, self.multiple = bins, 2 ** scales
        self.low, self.high, self.full = (DenseUNet(16, k, layers, scales) for k in growth)
        self.alike = nn.Conv2d(self.high.outputs, self.low.outputs, 1)          # as many channels above as below
        self.join = DenseBlock(self.low.outputs + self.full.outputs, growth[2], layers)
        self.last = nn.Conv2d(self.join.outputs, stems, 1)

    def forward(self, magnitude):  # (batch, bins, frames) -> (batch, stems, bins, frames)
        frames = magnitude.shape[-1]
        x = torch.log1p(100 * nn.functional.pad(magnitude[:, :self.bins], (0, -frames % self.multiple))).unsqueeze(1)
        low, high = x.split(self.bins // 2, 2)                                  # (batch, 1, bins / 2, frames)
        bands = torch.cat([self.low(low), self.alike(self.high(high))], 2)      # (batch, channels, bins, frames)
        x = self.last(self.join(torch.cat([bands, self.full(x)], 1)))[..., :frames]
        return _extend(x.softmax(1), magnitude.shape[1])


@network
class SmallHDemucs(nn.Module):
    "Hybrid Demucs (Défossez 2021) of torchaudio: a waveform and a complex spectrogram branch that meet in the middle."
    takes = "waveform"

    def __init__(self, stems: int, channels: int = 12, depth: int = 6, n_fft: int = 2048):
        super().__init__()
        from torchaudio.models import HDemucs
        self.body = HDemucs([str(k) for k in range(stems)], audio_channels=1, channels=channels, nfft=n_fft,
                            depth=depth)

    def forward(self, mixture):  # (batch, samples) -> (batch, stems, samples)
        return self.body(mixture.unsqueeze(1))[:, :, 0]


@network
class HybridTransformer(nn.Module):
    """Hybrid Transformer Demucs (Rouard, Massa and Défossez 2023) of the package demucs, as published, for one channel
    and half the rate. Longer sound is taken apart in windows as long as its examples, which fade into each other, as
    there."""
    takes = "waveform"

    def __init__(self, stems: int, seconds: float = SECONDS, n_fft: int = 2048):
        super().__init__()
        from demucs.htdemucs import HTDemucs
        self.window = int(seconds * RATE)
        self.body = HTDemucs([str(k) for k in range(stems)], audio_channels=1, nfft=n_fft, samplerate=RATE,
                             segment=seconds, use_train_segment=False, dconv_mode=3, bottom_channels=512,
                             t_dropout=0.02)

    def forward(self, mixture):  # (batch, samples) -> (batch, stems, samples)
        samples, size = mixture.shape[-1], self.window
        separate = lambda part: self.body(part.unsqueeze(1))[:, :, 0]
        if self.training or samples <= size: return separate(mixture)
        fade = 1 - torch.linspace(-1, 1, size + 2, device=mixture.device)[1:-1].abs()
        found, weight = 0, mixture.new_zeros(samples)
        for first in (*range(0, samples - size, 3 * size // 4), samples - size):
            around = (first, samples - size - first)
            found = found + nn.functional.pad(separate(mixture[:, first:first + size]) * fade, around)
            weight[first:first + size] += fade
        return found / weight


# ---- instsep's, with another output head

@network
class ComplexMasks(HarmonicRNN):
    "HarmonicRNN whose masks are complex: they may turn the phase, and weaken by cancelling."
    def __init__(self, stems: int, **options): super().__init__(3 * stems, **options)

    def masks_of(self, logits):  # (batch, 3 * stems, ...) -> complex (batch, stems, ...)
        """Shares by softmax, and to each a complex number with parts between -1 and 1, less the mean of these: all
        add up to 1."""
        shares, real, imaginary = logits.float().chunk(3, 1)
        turned = torch.complex(torch.tanh(real), torch.tanh(imaginary))
        return shares.softmax(1) + turned - turned.mean(1, keepdim=True)


@network
class NoResidual(HarmonicRNN):
    "HarmonicRNN with a stem for each instrument and none for the rest: its mask is zero, and so teaches nothing."
    def __init__(self, stems: int, **options): super().__init__(stems - 1, **options)

    def forward(self, magnitude):  # (batch, bins, frames) -> (batch, stems, bins, frames), the last one silent
        return nn.functional.pad(super().forward(magnitude), (0, 0, 0, 0, 0, 1))


# ---- rows

@dataclass
class Row:
    "One network and how it is trained."
    name: str
    change: str
    network: str = "HarmonicRNN"
    options: dict = field(default_factory=dict)
    kind: str = "rival"                                  # or experiment: what changes against HarmonicRNN
    data: str = "rooms"                                  # which of the caches: rooms, dry, one
    loss: str = "decibel"                                # or l1, l2, mse, si-sdr
    seconds: float = SECONDS                             # of an example
    batch: int = BATCH
    learning_rate: float = LEARNING_RATE
    resolutions: tuple[int, ...] = ()                    # of `TrainConfig`
    seed: int = SEED
    averaged: bool = True                                # which weights are scored: their average, or the last ones


def experiment(name, change, **settings): return Row(name, change, kind="experiment", **settings)


ROWS = [
    Row("HarmonicRNN", "instsep"),
    Row("OpenUnmixBLSTM", "Open-Unmix's idea in one network for all stems: layer instead of batch normalisation, 2 "
                          "layers of 384, softmax masks",
        "OpenUnmixBLSTM"),
    Row("RepairedUNet", "the paper's U-Net, made to give masks", "RepairedUNet"),
    Row("HDemucs", "torchaudio's, 12 channels instead of 48", "SmallHDemucs"),
    Row("HDemucs, 3e-4", "the same at its authors' learning rate", "SmallHDemucs", learning_rate=3e-4),
    Row("HDemucs, 48 channels", "torchaudio's at its published width", "SmallHDemucs", options=dict(channels=48),
        learning_rate=3e-4),
    Row("HTDemucs", "the package demucs', with its transformer, at its published width", "HybridTransformer",
        learning_rate=3e-4),
    Row("Wave-U-Net", "10 levels, 12 more filters each, instead of 12 and 24", "WaveUNet"),
    Row("MMDenseNet", "growth 8, 3 and 4, 3 layers, 3 scales", "MMDenseNet"),
    Row("BandSplitRNN", "BSRNN's idea, bands and widths for a processor core", "BandSplitRNN"),
    Row("openunmix", "the package's network, one of 512 for each stem", "OpenUnmix"),
    experiment("rooms off", "trained on dry mixtures only", data="dry"),
    experiment("loss: L1", "relative L1 distance of complex spectrograms", loss="l1"),
    experiment("loss: L2", "squared error of complex spectrograms, relative to the mixture's energy", loss="l2"),
    experiment("loss: SI-SDR", "minus the SI-SDR of the waveforms of what sounds", loss="si-sdr"),
    experiment("loss: MSE", "the paper's: mean squared error of magnitudes", loss="mse"),
    experiment("loss: multi-resolution", "the same loss at frames of 23, 93 and 372 ms, too",
               resolutions=(512, 2048, 8192)),
    experiment("complex masks", "shares by softmax plus a bounded complex number; they still add up to the mixture",
               network="ComplexMasks"),
    experiment("no residual stem", "the three share all there is; none of the mixtures scored holds anything else",
               network="NoResidual"),
    experiment("no averaged weights", "the last weights of the first row, not their average", averaged=False),
    experiment("segment 2 s", "twice as many, half as long", seconds=2.0, batch=4),
    experiment("segment 8 s", "half as many, twice as long", seconds=8.0, batch=1),
    experiment("width 24", "instead of 32", options=dict(width=24)),
    experiment("width 48", "instead of 32", options=dict(width=48)),
    experiment("2 layers", "instead of 3", options=dict(layers=2)),
    experiment("4 layers", "instead of 3", options=dict(layers=4)),
    experiment("no harmonic shifts", "bands take their neighbours, not their harmonics", options=dict(overtones=())),
    experiment("no frame summary", "bands get no summary of the frame", options=dict(summary=0)),
    experiment("one soundfont", f"trained on {SEEN_SOUNDFONT} and its variations only", data="one"),
    experiment("seed 1", "nothing but the seed of weights and examples: how much chance there is", seed=1),
]


def training_of(row):
    "What its training depends on; rows that agree in it share one."
    return {key: value for key, value in asdict(row).items() if key not in ("name", "change", "kind", "averaged")}


# ---- data

def render_training(folder, bank, pieces, needed=CACHES, items=ITEMS, workers=1):
    """Paths of those of the caches `rooms`, `dry` and `one` that are needed, int16 (items, stems, samples): the same
    pieces, notes and tone controls in all three. `bank`: a function that loads it, called if any is missing."""
    paths = {name: folder / (f"{name}.npy" if items == ITEMS else f"{name}_{items}.npy") for name in needed}
    missing = [name for name, path in paths.items() if not path.exists()]
    if not missing: return paths
    bank = bank()
    settings = dict(instruments=TRIO, sample_rate=RATE, seconds=ITEM_SECONDS, absent=0.2, other=0.15,
                    augmentation=(Equaliser(0.5, 3.0), Gain()), seed=SEED)
    several = balanced(bank, WEIGHTS)
    single = {name: own for name in several if (own := [i for i in bank.of(name) if i.split("/")[0] == SEEN_SOUNDFONT])}
    sets = {name: Mixtures(pieces, bank_player(bank), single if name == "one" else several, **settings)
            for name in {"one" if name == "one" else "several" for name in missing}}
    to_int = lambda stems: np.round(stems / max(1.0, np.abs(stems).max() / 0.95) * 32767).astype(np.int16)
    with ExitStack() as written:
        stored = {name: np.lib.format.open_memmap(
                      written.enter_context(atomic_path(paths[name])), "w+", np.int16,
                      (items, len(STEMS), int(ITEM_SECONDS * RATE)))
                  for name in missing}

        def render(i):
            stems = {name: data.item(i)[1] for name, data in sets.items()}
            for name, out in stored.items():
                waves = stems["one" if name == "one" else "several"]
                if name != "dry": waves = Room()(waves, RATE, np.random.default_rng([SEED, i, 2]))
                out[i] = to_int(WhiteNoise()(waves, RATE, np.random.default_rng([SEED, i, 3])))

        in_processes(render, items, workers)
        groups = Counter(i.split("/")[0] for own in several.values() for i in dict.fromkeys(own))
        write_json(folder / "bank.json", groups, indent=None)
    return paths


def in_processes(task, count, workers):
    "task(0) to task(count - 1), every `workers`-th in the same process."
    def some(first):
        for i in range(first, count, workers): task(i)
    if workers == 1: return some(0)
    processes = [multiprocessing.get_context("fork").Process(target=some, args=(k,)) for k in range(workers)]
    for process in processes: process.start()
    for process in processes: process.join()
    if any(process.exitcode for process in processes): raise SystemExit("rendering failed")


def example(cache, rng, seconds):
    "Stems (stems, samples): a crop of one item, or each stem from another, at gains of their own."
    length, items = int(seconds * RATE), len(cache)
    while True:
        together = rng.random() < 0.5
        chosen = [int(rng.integers(items))] * len(STEMS) if together else rng.integers(items, size=len(STEMS))
        last = cache.shape[2] - length
        starts = [int(rng.integers(last + 1))] * len(STEMS) if together else rng.integers(last + 1, size=len(STEMS))
        stems = np.stack([cache[i, k, s:s + length] for k, (i, s) in enumerate(zip(chosen, starts))]).astype(
            np.float32) / 32767
        stems *= 10 ** (rng.uniform(-4, 4, (len(STEMS), 1)) / 20)
        if np.square(stems.sum(0)).mean() > 1e-6: return stems


def gathered(cache, row, step):
    """What `example` draws, all of a batch at once on the cache's device; of a quarter more than it needs, the silent
    come last."""
    rng, length, stems = np.random.default_rng([row.seed, step]), int(row.seconds * RATE), len(STEMS)
    count = row.batch + max(2, row.batch // 4)
    together = rng.random((count, 1)) < 0.5
    draw = lambda below: np.where(together, rng.integers(below, size=(count, 1)),
                                  rng.integers(below, size=(count, stems)))
    there = lambda x: torch.from_numpy(x).to(cache.device, non_blocking=True)[..., None]        # (count, stems, 1)
    items, starts = there(draw(len(cache))), there(draw(cache.shape[2] - length + 1))
    gains = there((10 ** (rng.uniform(-4, 4, (count, stems)) / 20)).astype(np.float32))
    along = lambda size: torch.arange(size, device=cache.device)
    sound = cache[items, along(stems)[:, None], starts + along(length)].float() / 32767 * gains
    silent = sound.sum(1).square().mean(-1) <= 1e-6
    return sound[silent.int().argsort(stable=True)[:row.batch]]


@lru_cache
def cache_on(path, device): return torch.from_numpy(np.load(path, mmap_mode="c")).to(device)


def batch_of(cache, row, step):
    "Stems (batch, stems, samples), from a cache in memory or on a device."
    if isinstance(cache, torch.Tensor): return gathered(cache, row, step)
    rng = np.random.default_rng([row.seed, step])
    return torch.from_numpy(np.stack([example(cache, rng, row.seconds) for _ in range(row.batch)]).astype(np.float32))


def render_tests(folder, pieces, recorded, count):
    "Each set: a list of stems (instruments, samples), and the scores of its oracle."
    path = folder / f"tests_{count}.npz"
    if not path.exists():
        made, length = {}, int(TEST_SECONDS * RATE)
        for label, font in test_soundfonts():
            for i, (_, _, stems) in enumerate(soundfont_items(font, pieces, count, TRIO)):
                made[f"{label}|{i}"] = resample(np.concatenate([stems[name] for name in TRIO]), 44100, RATE)[:, :length]
        for i in range(count):
            if (stems := made.get(f"seen soundfont|{i}")) is not None:
                made[f"seen, in rooms|{i}"] = Room(p=1.0)(stems, RATE, np.random.default_rng([SEED, i, 4]))
        for place, _, stems in recordings(recorded, TRIOS):
            silence = np.zeros_like(next(iter(stems.values())))
            made[f"recordings|{place.name[:3]}"] = resample(np.concatenate([stems.get(k, silence) for k in TRIO]),
                                                            44100, RATE)
        with atomic_path(path) as tmp: np.savez(tmp, **{k: v.astype(np.float32) for k, v in made.items()})
    stored = np.load(path)
    sets = {label: [stored[key] for key in stored.files if key.split("|")[0] == label] for label in SETS}
    return {label: items for label, items in sets.items() if items}


# ---- training

class RivalSeparator(Separator):
    "A `Separator` whose network may also take waveforms."
    def estimate(self, mixture):  # (batch, samples) -> complex (batch, stems, bins, frames), waveforms or None
        if getattr(self.network, "takes", "magnitude") == "waveform":
            waves = self.waves(mixture)
            return self.spectrogram(waves), waves
        spec = self.spectrogram(mixture)[:, None]                               # (batch, 1, bins, frames)
        return self.masks(spec) * spec, None

    def waves(self, mixture):  # (batch, samples) -> (batch, stems, samples)
        loudness = mixture.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-4)
        return self.network(mixture / loudness) * loudness[:, None]

    def forward(self, waveform):  # (batch, channels, samples) -> (batch, stems, channels, samples)
        if getattr(self.network, "takes", "magnitude") == "magnitude": return super().forward(waveform)
        return torch.stack([self.waves(channel) for channel in waveform.unbind(1)], 2)


class FloatLSTM(nn.LSTM):
    "In 32 bits inside autocast, too, which runs LSTMs on a GPU in float16 whatever it was asked for."
    def forward(self, x, *state):
        with torch.autocast(x.device.type, enabled=False): return super().forward(x.float(), *state)


def config_of(row): return SeparatorConfig(instruments=TRIO, network=row.network, options=row.options).at(RATE)


class RivalModule(SeparatorModule):
    "`SeparatorModule` with the losses of the rows; the one of the package where the row names no other."
    def __init__(self, config, train, kind):
        super().__init__(config, train)
        self.kind = kind
        self.model = RivalSeparator(config)
        self.ema = RivalSeparator(config).requires_grad_(False).eval()
        self.ema.load_state_dict(self.model.state_dict())

    def loss(self, model, batch):
        stems = batch["stems"]                                                  # (batch, stems, samples)
        if self.kind == "decibel" and getattr(model.network, "takes", "magnitude") == "magnitude":
            return super().loss(model, batch)
        mixture = stems.sum(1)
        estimate, waves = model.estimate(mixture)
        if self.kind == "si-sdr":
            c = model.config
            waves = istft(estimate * (c.n_fft / 2), c.n_fft, c.hop, stems.shape[-1]) if waves is None else waves
            return -si_sdr_of(waves, stems)[stems.square().mean(-1) > 1e-7].mean()
        reference = model.spectrogram(stems)
        if self.kind == "decibel": return spectral_loss(estimate, reference)
        if self.kind == "l1":
            return ((estimate - reference).abs().mean((1, 2, 3)) / reference.sum(1).abs().mean((1, 2))).mean()
        power = reference.sum(1).abs().square().mean((1, 2))                    # of mixtures brought to one level:
        error = estimate - reference if self.kind == "l2" else estimate.abs() - reference.abs()        # "l2" or "mse"
        return (error.abs().square().mean((1, 2, 3)) / power).mean()


def si_sdr_of(estimate, reference):
    "(..., samples) -> (...) in dB, differentiable."
    scale = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True).clamp_min(1e-8)
    target = scale * reference
    return 10 * torch.log10((target.square().sum(-1) + 1e-8) / ((estimate - target).square().sum(-1) + 1e-8))


@dataclass
class Budget:
    "What a row may spend: processor seconds, or so many updates, which the clock measures."
    seconds: float
    steps: int | None = None
    deadline: float = math.inf                                                  # seconds since 1970

    @property
    def clock(self): return time.monotonic if self.steps else time.process_time

    def share(self, state): return state["step"] / self.steps if self.steps else state["spent"] / self.seconds

    def reached(self, mark, state): return state["step"] >= mark if self.steps else state["spent"] >= 60 * mark


@contextmanager
def counted(total, clock=time.process_time):
    "Adds the seconds spent inside to total[0]."
    begun = clock()
    yield
    total[0] += clock() - begun


class Checkpoint:
    "What a training is made of, in one file that is written whole; `path` None: nothing is kept."
    EVERY = 120.0                                                               # seconds

    def __init__(self, path, module, optimizer, scheduler):
        self.path, self.parts, self.saved = path, dict(module=module, optimizer=optimizer, scheduler=scheduler), 0.0
        self.state = dict(step=0, spent=0.0, data=0.0, losses=[], curve=[], marks={})
        if path is not None and path.exists():
            kept = torch.load(path, weights_only=True, map_location="cpu")
            for name, part in self.parts.items(): part.load_state_dict(kept[name])
            self.state = kept["state"]
            torch.set_rng_state(kept["random"])

    def save(self, always=False):
        if self.path is None or not always and time.monotonic() - self.saved < self.EVERY: return
        with atomic_path(self.path) as temporary:
            torch.save({name: part.state_dict() for name, part in self.parts.items()}
                       | dict(state=self.state, random=torch.get_rng_state()), temporary)
        self.saved = time.monotonic()


def prepare(module, row, cache):
    "What a network wants to know of the data before it learns."
    if not hasattr(module.model.network, "prepare"): return
    spec = module.model.spectrogram(torch.stack([batch_of(cache, row, 10 ** 6 + k).sum(1)[0] for k in range(32)])).abs()
    for model in (module.model, module.ema): model.network.prepare(spec / local_rms(spec))


def learn(module, optimizer, stems, step, settings):
    "One step; the loss, on the device."
    torch.backends.cudnn.benchmark = True
    with torch.autocast(stems.device.type, torch.bfloat16, enabled=settings.bf16):
        loss = module.loss(module.model, dict(stems=stems))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.model.parameters(), settings.clip)
    optimizer.step()
    decay = min(settings.ema, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(module.ema.parameters()), list(module.model.parameters()), 1 - decay)
    return loss.detach()


def keep_buffers(module):
    "Those of batch normalisation are not averaged."
    for averaged, current in zip(module.ema.buffers(), module.model.buffers()): averaged.copy_(current)


def train(row, cache, budget, marks=(), sets=None, path=None):
    """Until the budget is spent on training: separators of the last and of the averaged weights, and what it took. At
    `marks` (minutes, or updates) the averaged weights are scored on `sets`; it goes on from the file at `path`."""
    torch.manual_seed(row.seed)
    config = config_of(row)
    device = cache.device if isinstance(cache, torch.Tensor) else "cpu"
    settings = TrainConfig(steps=budget.steps or 10 ** 9, minutes=None if budget.steps else budget.seconds / 60,
                           batch=row.batch, learning_rate=row.learning_rate, resolutions=row.resolutions, seed=row.seed,
                           bf16=True)
    module = RivalModule(config, settings, row.loss)
    if budget.steps:
        for part in module.modules():
            if type(part) is nn.LSTM: part.__class__ = FloatLSTM
    module.to(device)
    prepare(module, row, cache)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    checkpoint = Checkpoint(path, module, optimizer, scheduler)
    state = checkpoint.state
    module.model.train()
    while budget.share(state) < 1 and time.time() < budget.deadline:
        data, spent = [state["data"]], [state["spent"]]
        with counted(data, budget.clock): stems = batch_of(cache, row, state["step"])
        with counted(spent, budget.clock):
            state["losses"].append(learn(module, optimizer, stems, state["step"], settings))
            state["step"] += 1
            if budget.share(state) >= 1 and stems.is_cuda: torch.cuda.synchronize()
        state["data"], state["spent"] = data[0], spent[0]
        module.seconds = state["spent"]
        scheduler.step()
        if budget.share(state) >= (len(state["curve"]) + 1) / 12:
            state["curve"].append(round(float(np.mean([float(x) for x in state["losses"]])), 3)); state["losses"] = []
            if budget.steps:
                print(f"  {row.name}: {state['step']} updates, {state['spent'] + state['data']:.0f} s, loss "
                      f"{state['curve'][-1]}", flush=True)
        due = [mark for mark in marks if budget.reached(mark, state) and f"{mark:g}" not in state["marks"]]
        for mark in due:
            keep_buffers(module)
            scores = {label: {key: found[key] for key in ("n", "mean", "median")}
                      for label, found in evaluate(separate_with(module.ema.eval()), sets).items()}
            state["marks"][f"{mark:g}"] = dict(steps=state["step"], scores=scores)
            print(f"  {row.name}, {mark:g} {'updates' if budget.steps else 'min'}: "
                  + ", ".join(f"{k} {v}" for k, v in cells(scores).items()), flush=True)
        checkpoint.save(always=bool(due))
    checkpoint.save(always=True)
    keep_buffers(module)
    took = (dict(train_seconds=round(state["spent"] + state["data"], 1)) if budget.steps else
            dict(train_cpu_seconds=round(state["spent"], 1), data_cpu_seconds=round(state["data"], 1)))
    return module.eval(), dict(took, steps=state["step"], curve=state["curve"],
                               audio_hours=round(state["step"] * row.batch * row.seconds / 3600, 2),
                               **(dict(cut_off=True) if budget.share(state) < 1 else {}),
                               **(dict(marks=state["marks"]) if marks else {}))


# ---- what it costs and what it gives

def recurrent_macs(module, inputs, output):
    "Multiplications of an LSTM: per step and direction 4 * hidden * (inputs + hidden)."
    steps = inputs[0].shape[0] * inputs[0].shape[1]
    per_step = sum(w.numel() for name, w in module.named_parameters() if name.startswith("weight"))
    module.counted += steps * per_step


def gmac_per_second(model, seconds=4):
    """Multiply-adds per second of audio, in billions: what PyTorch counts, and by hand LSTMs, which it does not; no
    Fourier transforms."""
    lstms = [m for m in model.modules() if isinstance(m, nn.LSTM)]
    handles = [m.register_forward_hook(recurrent_macs) for m in lstms]
    for m in lstms: m.counted = 0
    counter = FlopCounterMode(display=False)
    torch.backends.mha.set_fastpath_enabled(False)                              # one operation, not counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter: model(0.1 * torch.randn(1, 1, seconds * RATE))
    torch.backends.mha.set_fastpath_enabled(True)
    for handle in handles: handle.remove()
    inside = sum(v for name, v in counter.get_flop_counts()["Global"].items() if "lstm" in str(name)
                 or "rnn" in str(name))
    assert not inside, "this PyTorch counts LSTMs by itself"
    return (counter.get_total_flops() / 2 + sum(m.counted for m in lstms)) / seconds / 1e9


def cpu_per_second(model, seconds=12):
    "Processor seconds per second of mono audio at 22050 Hz, waveform to waveforms: the median of three."
    mixture, times = 0.1 * torch.randn(1, 1, seconds * RATE), []
    with torch.inference_mode():
        for _ in range(4): times.append(cpu_time(model, mixture)[1])
    return float(np.median(times[1:])) / seconds


def improvements(estimates, stems):
    "SI-SDR improvement of every stem that sounds beside another one, and leakage of those that do not, in dB."
    scored = stem_scores(dict(zip(TRIO, estimates)), dict(zip(TRIO, stems)), stems.sum(0))
    several = sum(bool(s.any()) for s in stems) > 1
    return ([r["si_sdr_improvement"] for r in scored if several and np.isfinite(r["si_sdr_improvement"])],
            [r["leakage"] for r in scored if np.isfinite(r["leakage"])])


def evaluate(separate, sets):
    "n, mean, median of the improvement, mean leakage, and the improvements one by one, for each set."
    out = {}
    for label, items in sets.items():
        both = [improvements(separate(stems), stems) for stems in items]
        gains, leaks = (np.array([x for pair in both for x in pair[k]]) for k in (0, 1))
        out[label] = dict(n=len(gains), mean=round(float(gains.mean()), 2), median=round(float(np.median(gains)), 2),
                          leakage=round(float(leaks.mean()), 1) if len(leaks) else None,
                          gains=[round(float(x), 2) for x in gains])
    return out


def costs_of(model):
    return dict(gmac_per_s=round(gmac_per_second(model), 4), cpu_s_per_s=round(cpu_per_second(model), 4))


def separate_with(model):
    device = next(model.parameters()).device
    def separate(stems):
        torch.backends.cudnn.benchmark = False                                  # hardly two are of one length
        with torch.inference_mode():
            return model(torch.from_numpy(stems.sum(0))[None, None].to(device))[0, :len(TRIO), 0].float().cpu().numpy()
    return separate


def ideal(stems): return oracle(stems.sum(0), stems, n_fft=2048, hop=512).numpy()


# ---- results

def keep(path, about, rows):
    "Add to what is on disk, which another process may have added to since, and write the table."
    with alone(path.parent):
        log = read_json(path, dict(rows={}))
        log |= about
        log["rows"] |= rows
        spent = [row["data_cpu_seconds"] for row in log["rows"].values() if "data_cpu_seconds" in row]
        if spent: log["data_seconds"] = max(spent)
        write_json(path, log)
        if log["rows"]: write_table(path.with_suffix(".md"), log)


def add_costs(path):
    "Multiply-adds and processor seconds of rows that lack them, of untrained networks."
    for row in ROWS:
        entry = read_json(path)["rows"].get(row.name)
        if entry is None or "gmac_per_s" in entry: continue
        try: model = RivalSeparator(config_of(row)).eval()
        except ImportError as e: print(f"{row.name}: left out ({e})"); continue
        entry |= costs_of(model)
        keep(path, dict(costs_machine=processor()), {row.name: entry})
        print(f"{row.name}: {entry['gmac_per_s']:.2f} GMAC/s, {entry['cpu_s_per_s']:.3f} CPU s/s", flush=True)


def cells(scores):
    of = lambda s: f"{s['mean']:+.1f} / {s['median']:+.1f}"
    return {f"{label} ({scores[label]['n']})": of(scores[label]) for label in SETS if label in scores}


def curve_of(entry):
    "Marks and what was scored there; the end of a row that was not cut off is one, too."
    whole = {} if entry.get("cut_off") or "train_cpu_seconds" in entry else {str(entry["steps"]): entry}
    return entry.get("marks", {}) | whole


def core_minutes(name, examples):
    "What so many examples take on a processor core, from a row's steps there in two minutes; None without a row."
    entry = read_json(RESULTS / "rivals.json", dict(rows={}))["rows"].get(name)
    return entry and examples / entry["batch"] / entry["steps"] * entry["train_cpu_seconds"] / 60


def line_of(row, entry, first):
    "A line of the table; its first column is called `first`. A row that was cut off has the scores of its last mark."
    of = lambda key, digits: f"{entry[key]:.{digits}f}" if key in entry else None
    scores = entry["scores"]
    if "train_cpu_seconds" in entry:
        spent = {"training, CPU min": f"{entry['train_cpu_seconds'] / 60:.1f}", "steps": entry["steps"]}
    else:
        steps, of_cut = entry["steps"], ""
        if entry.get("cut_off") and entry.get("marks"):
            steps, scores = (list(entry["marks"].values())[-1][key] for key in ("steps", "scores"))
            of_cut = f" (cut off at {entry['steps']})"
        examples = steps * entry["batch"]
        minutes = core_minutes(row.name, examples)
        spent = {"updates": f"{steps}{of_cut}", "training, h of sound": f"{examples * entry['seconds'] / 3600:.1f}",
                 "on a core, min": minutes and f"{minutes:.0f}"}
    return {first: row.name, "what": row.change, "parameters": f"{entry['parameters'] / 1e6:.2f} M",
            "GMAC/s": of("gmac_per_s", 2), "CPU s/s": of("cpu_s_per_s", 3), **spent, **cells(scores)}


def tables_of(log):
    "The networks with mixture and oracle, and the experiments with what they are to be compared with."
    of = lambda kind, first: [line_of(row, log["rows"][row.name], first) for row in ROWS if row.kind == kind
                              and row.name in log["rows"]]
    networks, changes = of("rival", "network"), of("experiment", "change")
    if networks:
        blank = dict.fromkeys(list(networks[0])[2:], "")
        networks += [{**blank, "network": "mixture", "what": "nothing done",
                      **dict.fromkeys(cells(log["oracle"]), "0 / 0")},
                     {**blank, "network": "oracle", "what": "ideal ratio mask, the mixture's phase",
                      **cells(log["oracle"])}]
    if changes and ROWS[0].name in log["rows"]:
        changes.insert(0, line_of(ROWS[0], log["rows"][ROWS[0].name], "change") | {"what": "as above"})
    return networks, changes


def terms_of(log):
    "What every row was trained on, and how long."
    groups = ", ".join(f"{count} of {group}" for group, count in log["bank"].items())
    if "steps" not in log:
        return f"""`{log['command']}` on {log['machine']}, one thread; torch {log['torch']}.

Every row: the same {log['items']} excerpts of {log['item_seconds']:g} s of training pieces \
({log['audio_minutes']:.0f} minutes, drawn from and mixed
anew), the same crops in the same order, AdamW (at most {LEARNING_RATE:g}, then down a cosine), batches of \
{log.get('batch', BATCH)} x {SECONDS:g} s unless
the row says otherwise, and the same budget: {log['seconds']:g} s of processor time in forward (products in bfloat16), \
backward and
optimizer; assembling batches is not counted, it took up to {log['data_seconds']:.0f} s. At {log['seconds'] / 60:.3g} \
min each the table shows what learns
most from little data, not where each would end. Instances of the note bank: {groups}."""
    cut = [name for name, row in log["rows"].items() if row.get("cut_off")]
    cut_off = f"""

{'; '.join(cut)}: cut off when the time was up. The row has the scores after as many updates as stand there, at a
learning rate that had not yet come down; below they stand beside those of the others after as many.""" if cut else ""
    slower = [name for name, row in log["rows"].items() if row["learning_rate"] != LEARNING_RATE]
    return f"""`{log['command']}` on {log['machine']}, shared with other trainings; torch {log['torch']}.

Every row: the same {log['items']} excerpts of {log['item_seconds']:g} s of training pieces \
({log['audio_minutes'] / 60:.1f} hours, drawn from and mixed
anew), and the same {log['steps']} updates of {log.get('batch', BATCH)} x {SECONDS:g} s, the same crops in the same \
order, with AdamW (at most {LEARNING_RATE:g}\
{f'; {" and ".join(slower)}: 3e-4' if slower else ''}; then down a cosine); products
in bfloat16, recurrent layers in float32. So all were given the same sound as often, however long \
each took over it.
"On a core": the minutes that as many examples would take there, by the steps of two minutes in `rivals.md`.{cut_off}

Instances of the note bank: {groups}."""


def write_table(path, log):
    networks, changes = tables_of(log)
    measured = f", on {log['costs_machine']}, beside other work" if "costs_machine" in log else ""
    text = f"""# Rivals and experiments

{terms_of(log)}

SI-SDR improvement in dB over the unprocessed mixture, mean / median over the stems that sound beside another (n \
above); {log['count']} mixtures
of {TEST_SECONDS:g} s at 22050 Hz for each soundfont. Seen soundfont: {SEEN_SOUNDFONT}; held-out: \
{HELD_OUT_SOUNDFONT}; in rooms: the mixtures of the seen
soundfont, reverberated, against reverberant stems; recordings: R01 to R04. GMAC/s: billions of multiply-adds per \
second of audio;
CPU s/s: processor seconds per second of mono audio at 22050 Hz{measured}.

## Networks

{format_table(networks)}
"""
    if changes: text += f"\n## HarmonicRNN, one change a row\n\n{format_table(changes)}\n"
    marked = {row.name: curve_of(entry) for row in ROWS if (entry := log["rows"].get(row.name)) and entry.get("marks")}
    unit, when = (("updates", "updates") if "steps" in log else ("min", "minutes of a core"))
    for label in SETS if marked else ():
        lines = [{"network": name} | {f"{mark} {unit}": cells(at["scores"]).get(f"{label} ({at['scores'][label]['n']})")
                                      for mark, at in marks.items() if label in at["scores"]}
                 for name, marks in marked.items()]
        if max(map(len, lines)) < 3: continue                                   # no curve
        text += f"\n## Learning curves: {label}\n\nMean / median after so many {when}.\n\n{format_table(lines)}\n"
    write_text(path, text)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--bank", help="note bank to train on, 22050 Hz; needed until the cache is there")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank, made by instsep pieces")
    parser.add_argument("--recordings", default=RECORDINGS)
    parser.add_argument("--cache", default="data/rivals", help="folder for what is rendered once")
    parser.add_argument("--seconds", type=float, default=120, help="processor seconds of training for each row")
    parser.add_argument("--count", type=int, default=20, help="mixtures per soundfont")
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME",
                        help="these rows, in this order")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--table", action="store_true", help="write the table of what is there and end")
    parser.add_argument("--marks", type=float, nargs="*", default=[], metavar="MINUTES",
                        help="score the averaged weights then, too: learning curves")
    parser.add_argument("--checkpoints", help="folder for checkpoints: a row that was cut off goes on where it stopped")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, which needs --steps")
    parser.add_argument("--steps", type=int, help="updates for each row, instead of --seconds; so are --marks then")
    parser.add_argument("--batch", type=int, help="examples of an update, for all rows")
    parser.add_argument("--items", type=int, default=ITEMS, help="excerpts to train on")
    parser.add_argument("--workers", type=int, default=1, help="processes that render them")
    parser.add_argument("--deadline", type=float, default=math.inf, metavar="SECONDS",
                        help="since 1970: the row at hand stops then, with the marks that it has, and no other begins")
    parser.add_argument("--render", action="store_true", help="make what all rows share and end")
    parser.add_argument("--costs", action="store_true", help="add multiply-adds and processor times where they lack")
    parser.add_argument("--name", default="rivals", help="of the results")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    if args.device != "cpu" and not args.steps: parser.error("--device: processor seconds mean nothing there; --steps")
    path = Path(args.out) / f"{args.name}.json"
    if args.checkpoints: Path(args.checkpoints).mkdir(parents=True, exist_ok=True)
    if args.list: return print("\n".join(f"{row.kind:11} {row.name}: {row.change}" for row in ROWS))
    if args.table: return write_table(path.with_suffix(".md"), json.loads(path.read_text()))
    torch.set_num_threads(1)
    if args.costs: return add_costs(path)
    run(args, path, parser)


def run(args, path, parser):
    "All rows that are asked for and not there."
    torch.set_float32_matmul_precision("high")                                  # changes nothing on a processor
    torch.backends.cudnn.benchmark_limit = 4
    rows = [replace(row, batch=args.batch or row.batch) for row in ROWS]
    chosen = [next(row for row in rows if row.name == name) for name in args.only]
    folder, pieces = Path(args.cache), PieceBank.load(args.pieces).split()
    caches = render_training(folder, lambda: NoteBank.load(args.bank), pieces["train"],
                             [name for name in CACHES if any(row.data == name for row in chosen)], args.items,
                             args.workers)
    sets = render_tests(folder, pieces["test"], args.recordings, args.count)
    budget = Budget(args.seconds, args.steps, args.deadline)
    done, terms = read_json(path, {}), dict(count=args.count, items=args.items, batch=args.batch, steps=args.steps,
                                            seconds=None if args.steps else args.seconds)
    if done and any(done.get(key) != value for key, value in terms.items()):
        parser.error(f"{path} holds rows of { {key: done.get(key) for key in terms} }; give these, or another --out")
    command = (f"python benchmarks/rivals.py --bank BANK --device {args.device} --steps {args.steps} --items "
               f"{args.items}" if args.steps else
               f"OMP_NUM_THREADS=1 python benchmarks/rivals.py --bank BANK --seconds {args.seconds:g}")
    command += f" --batch {args.batch}" if args.batch else ""
    command += f" --marks {' '.join(f'{mark:g}' for mark in args.marks)}" if args.marks else ""
    about = dict(command=command,
                 machine=torch.cuda.get_device_name() if args.device.startswith("cuda") and not args.render
                 else processor(),
                 torch=torch.__version__, instsep=__version__,
                 **{key: value for key, value in terms.items() if value is not None}, item_seconds=ITEM_SECONDS,
                 audio_minutes=args.items * ITEM_SECONDS / 60, seen=SEEN_SOUNDFONT, held_out=HELD_OUT_SOUNDFONT,
                 bank=json.loads((folder / "bank.json").read_text()), oracle=done.get("oracle")
                 or evaluate(ideal, sets))
    if args.render: return keep(path, about, {})
    early = {label: sets[label] for label in SETS[:2] if label in sets} if args.steps else sets
    failed = []
    for row in chosen:
        there = read_json(path, dict(rows={}))["rows"].get(row.name)
        if there and not there.get("cut_off"): continue
        if time.time() > args.deadline: print(f"{row.name}: no time left"); continue
        file = f"{row.name.replace(' ', '_').replace(',', '')}.pt"
        kept = Path(args.checkpoints) / file if args.checkpoints else None
        cache = cache_on(caches[row.data], args.device) if args.steps else np.load(caches[row.data])
        try:
            module, took = train(row, cache, budget, args.marks, early, kept)
            for twin in (other for other in (chosen if args.steps else rows) if training_of(other) == training_of(row)):
                model, begun = module.ema if twin.averaged else module.model, time.process_time()
                entry = dict(asdict(twin), parameters=sum(p.numel() for p in model.parameters()),
                             **({} if args.steps else costs_of(model)), **took,
                             scores={} if "cut_off" in took else evaluate(separate_with(model), sets))
                entry["score_cpu_seconds"] = round(time.process_time() - begun, 1)
                keep(path, about, {twin.name: entry})
                losses = " to ".join(str(loss) for loss in took["curve"][:1] + took["curve"][1:][-1:])
                print(f"{twin.name}: {took['steps']} steps, loss {losses}, {entry['parameters'] / 1e6:.2f} M"
                      + ("" if args.steps else
                         f", {entry['gmac_per_s']:.2f} GMAC/s, {entry['cpu_s_per_s']:.3f} CPU s/s")
                      + f"; {took.get('train_seconds', took.get('train_cpu_seconds'))} s; "
                      + ", ".join(f"{k} {v}" for k, v in cells(entry["scores"]).items()), flush=True)
        except ImportError as e: print(f"{row.name}: left out ({e})")
        except Exception:
            if not args.steps: raise
            traceback.print_exc()                                               # the others still have their time
            failed.append(row.name)
        module = model = None
        if args.device != "cpu": torch.cuda.empty_cache()
    if failed: raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__": main()
