"""Why the paper's convolutional network does not separate, and what repairs it: one change at a time.

    python benchmarks/paper_unet.py --bank train_bank.safetensors --unheard TimGM6mb.safetensors

Every trial sees the same items in the same order from the same seed (5 epochs at a learning rate of 1e-3, as in the
paper) and is scored on mixtures of held-out pieces, played on soundfonts seen in training and on a held-out one.
Results go to nbs/results/paper_unet.json, pictures and clips to nbs/results/paper_unet/. A trial that is in the JSON
already is left as it is, so a run that was cut off goes on where it stopped; `--only NAME ...` chooses trials.
`--depth` trains the paper's network with and without normalisation and only writes how much its deep half does.
The bank is a `NoteBank` at 22050 Hz, see `instsep.sound.notebank`.
"""
import json
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from instsep import __version__
from instsep.sound.audio import save
from instsep.core import atomic_path
from instsep.metrics import si_sdr, summarise
from instsep.mixtures import DRY, Equaliser, Gain, Mixtures, Room, WhiteNoise, balanced, bank_player
from instsep.sound.notebank import NoteBank
from instsep.music.pieces import PieceBank
from instsep.inference.registry import find_network
from instsep.separator import ConvUNet, local_rms
from instsep.sound.spectral import istft, oracle, stft
from instsep.training.separator import spectral_loss
from common import ALSO_SEEN_SOUNDFONT, LOGS, SEEN_SOUNDFONT, arguments, read_json, write_json

SAMPLE_RATE, N_FFT, HOP, SECONDS = 22050, 4096, 1024, 2.5   # 2048 bins (and the Nyquist bin) of 5.4 Hz, 46 ms apart
ITEMS, EPOCHS, BATCH, LEARNING_RATE, SEED = 160, 5, 2, 1e-3, 0
STEMS = ("clarinet", "guitar", "piano", "other")
SEEN_SOUNDFONTS = (SEEN_SOUNDFONT, ALSO_SEEN_SOUNDFONT)
PICTURE_BINS, PICTURE_FRAMES = 256, 60                       # what is kept of a picture: up to 1.4 kHz, 2.8 s
PICTURED = ("paper", "level", "log", "mask", "repaired")
HEARD_TRIALS = ("paper", "repaired")


@dataclass
class Trial:
    "One network and how it is trained."
    name: str
    change: str                         # against which trial, and what
    scale: str = "raw"                  # of what goes in, and of the target: raw, level, log
    output: str = "direct"              # or mask
    loss: str = "mse"                   # or l1, complex
    norm: bool = False                  # inside the network
    network: str = "ConvUNet"
    options: dict = field(default_factory=dict)
    learning_rate: float = LEARNING_RATE


BANDS_5HZ = (16,) * 6 + (24,) * 8 + (48,) * 6 + (112,) * 5 + (200,) * 2     # the package's bands, in bins of 5.4 Hz
TRIALS = [
    Trial("paper", "the paper's network"),
    Trial("level", "paper, mixture and stems divided by the mixture's level", scale="level"),
    Trial("log", "level, and log1p of magnitudes in and out", scale="log"),
    Trial("mask", "log, but the network gives masks", scale="log", output="mask"),
    Trial("complex", "mask, but the loss compares complex spectrograms in decibel", scale="log", output="mask",
          loss="complex"),
    Trial("repaired", "complex, and group normalisation inside", scale="log", output="mask", loss="complex", norm=True),
    Trial("OpenUnmixBLSTM", "repaired, another network", scale="log", output="mask", loss="complex",
          network="OpenUnmixBLSTM", options=dict(bins=1536)),
    Trial("BandSplitRNN", "repaired, another network", scale="log", output="mask", loss="complex",
          network="BandSplitRNN",
          options=dict(bands=BANDS_5HZ, frames_per_step=1)),
    Trial("HarmonicRNN", "repaired, another network", scale="log", output="mask", loss="complex", network="HarmonicRNN",
          options=dict(bins=1536, frames_per_step=1)),
    Trial("paper, mask only", "paper, but the network gives masks", output="mask"),
    Trial("paper, L1 only", "paper, but mean absolute error", loss="l1"),
    Trial("paper, norm only", "paper, and group normalisation inside", norm=True),
    Trial("repaired, faster", "repaired, four times the learning rate", scale="log", output="mask", loss="complex",
          norm=True, learning_rate=4e-3),
]


def squeeze(magnitude, loudness, scale):
    "Magnitudes -> what the network sees and is compared in."
    if scale == "raw": return magnitude
    return magnitude / loudness if scale == "level" else torch.log1p(100 * magnitude / loudness)


def unsqueeze(x, loudness, scale):
    "The way back, to magnitudes."
    x = x.clamp_min(0)
    if scale == "raw": return x
    return x * loudness if scale == "level" else torch.expm1(x.clamp_max(12)) / 100 * loudness


def run(network, trial, mixture):
    """Complex mixture (batch, bins, frames) -> output in the trial's scale, and estimates of magnitudes (batch,
    stems, bins, frames)."""
    magnitude = mixture.abs()
    loudness = local_rms(magnitude)
    x = squeeze(magnitude, loudness, trial.scale)
    # a network of the package: it compresses by itself, and gives masks
    if trial.network != "ConvUNet":
        estimate = network(magnitude / loudness) * magnitude[:, None]
        return squeeze(estimate, loudness[:, None], trial.scale), estimate
    y = torch.nn.functional.pad(network(x[:, :-1]), (0, 0, 0, 1))     # without the Nyquist bin: 2048
    if trial.output == "direct": return y, unsqueeze(y, loudness[:, None], trial.scale)
    estimate = y.softmax(1) * magnitude[:, None]
    return squeeze(estimate, loudness[:, None], trial.scale), estimate


def loss_of(network, trial, stems):
    "stems (batch, stems, samples) -> scalar"
    # complex (batch, stems, bins, frames), not scaled: as torch and librosa give it
    reference = stft(stems, N_FFT, HOP)
    mixture = reference.sum(1)
    output, estimate = run(network, trial, mixture)
    if trial.loss == "complex":
        unit = 2 / N_FFT
        return spectral_loss(estimate * torch.exp(1j * mixture.angle())[:, None] * unit, reference * unit)
    target = squeeze(reference.abs(), local_rms(mixture.abs())[:, None], trial.scale)
    return (output - target).abs().mean() if trial.loss == "l1" else (output - target).square().mean()


def separate(network, trial, mixture):
    """mixture (samples,) -> stems (stems, samples), with the mixture's phase, and the network's own output (stems,
    bins, frames)."""
    with torch.inference_mode():
        spec = stft(mixture, N_FFT, HOP)[None]
        output, estimate = run(network, trial, spec)
        return istft(estimate[0] * torch.exp(1j * spec.angle()), N_FFT, HOP, mixture.shape[-1]), output[0]


def decibel(magnitude):
    return 20 * torch.log10(magnitude.abs().clamp_min(1e-6))


def likeness(found, stems):
    """Correlation of an output's picture in dB with the true one, over the cells within 60 dB of the mixture's peak:
    below 0, it is inverted."""
    reference = stft(stems, N_FFT, HOP)
    mixture = decibel(reference.sum(0))
    seen = mixture > mixture.max() - 60
    return [float(np.corrcoef(decibel(f)[seen], decibel(r)[seen])[0, 1]) if s.any() else float("nan")
            for f, r, s in zip(found, reference, stems)]


def build(trial):
    torch.manual_seed(SEED)
    if trial.network == "ConvUNet":
        return ConvUNet(len(STEMS), norm=trial.norm, **trial.options).to(memory_format=torch.channels_last)
    return find_network(trial.network)(stems=len(STEMS), **trial.options)


def depth(network, trial, mixture):
    """Change of the output when all is silenced from one height down, relative to the output's own spread; from 2048
    bins to 8."""
    changes = []
    with torch.inference_mode():
        spec = stft(mixture, N_FFT, HOP)[None]
        whole = run(network, trial, spec)[0]                 # (1, stems, bins, frames)
        for down in network.down:
            hook = down.register_forward_hook(lambda module, inputs, output: 0 * output)
            changes.append(float((run(network, trial, spec)[0] - whole).std() / whole.std((2, 3)).mean()))
            hook.remove()
    return changes


def train(trial, items):
    "Train on what `items(i)` gives; the network, the loss every 20 steps, and the seconds it took."
    network, curve, recent, begun = build(trial), [], [], time.process_time()
    optimizer = torch.optim.Adam(network.parameters(), trial.learning_rate)
    for epoch in range(EPOCHS):
        order = np.random.default_rng([SEED, epoch]).permutation(ITEMS)
        for batch in order.reshape(-1, BATCH):
            loss = loss_of(network, trial, torch.stack([items(i) for i in batch]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0) if trial.loss == "complex" else None
            optimizer.step()
            recent.append(loss.item())
            if len(recent) == 20: curve.append(float(np.mean(recent))); recent = []
        print(f"  {trial.name}: epoch {epoch + 1}, loss {curve[-1]:.4g}, {time.process_time() - begun:.0f} s",
              flush=True)
    return network.eval(), curve, time.process_time() - begun


def evaluate(network, trial, sets):
    "n, mean and median SI-SDR improvement of each set, and how like the truth the output looks."
    out = {}
    for label, items in sets.items():
        rows = []
        for stems in items:
            if sum(bool(s.any()) for s in stems) < 2: continue       # one instrument alone: nothing to separate
            mixture = stems.sum(0)
            found, output = separate(network, trial, mixture)
            for k, (like, stem, estimate) in enumerate(zip(likeness(output, stems), stems, found)):
                if not stem.any() or k == 3: continue
                rows.append(dict(stem=STEMS[k], si_sdr_improvement=si_sdr(estimate, stem) - si_sdr(mixture, stem),
                                 picture_correlation=like))
        out[label] = summarise(rows)
    return out


def baselines(sets):
    "The mixture as every estimate (its SI-SDR), and the ideal ratio mask over the same frames."
    out = {}
    for label, items in sets.items():
        rows = []
        for stems in items:
            if sum(bool(s.any()) for s in stems) < 2: continue
            mixture = stems.sum(0)
            ideal = oracle(mixture, stems, n_fft=N_FFT, hop=HOP)
            rows += [dict(stem=STEMS[k], input_si_sdr=si_sdr(mixture, stems[k]),
                          si_sdr_improvement=si_sdr(ideal[k], stems[k]) - si_sdr(mixture, stems[k]))
                     for k in range(3) if stems[k].any()]
        out[label] = summarise(rows)
    return out


def silence(items):
    "Mean squared error of answering silence for every stem, in each scale, over the items trained on."
    out = {"raw": [], "level": [], "log": []}
    for stems in items:
        reference = stft(stems, N_FFT, HOP).abs()
        loudness = local_rms(stft(stems.sum(0), N_FFT, HOP).abs()[None])
        for scale in out: out[scale].append(squeeze(reference, loudness, scale).square().mean().item())
    return {scale: float(np.mean(values)) for scale, values in out.items()}


def file_name(trial):
    return trial.name.replace(", ", "_").replace(" ", "_")


def picture(magnitude, peak):
    "(stems, bins, frames) -> uint8: steps of 2 dB, 40 is `peak`."
    steps = decibel(magnitude[..., :PICTURE_BINS, :PICTURE_FRAMES]) - 20 * np.log10(float(peak))
    return (40 + steps / 2).round().clamp(0, 40).to(torch.uint8).numpy()


def keep(folder, network, trial, stems):
    "What became of one mixture: pictures of the estimates and of the network's own output, and sound."
    mixture = stems.sum(0)
    found, output = separate(network, trial, mixture)
    peak = stft(mixture, N_FFT, HOP).abs().max()
    if trial.name in PICTURED:
        pictures = dict(estimate=picture(stft(found[:3], N_FFT, HOP), peak))
        if trial.name == "paper":
            pictures |= dict(output=picture(output[:3], output.abs().max()),
                             negative=(output[:3, :PICTURE_BINS, :PICTURE_FRAMES] < 0).numpy())
        with atomic_path(folder / f"{file_name(trial)}.npz") as tmp: np.savez_compressed(tmp, **pictures)
    if trial.name in HEARD_TRIALS:
        for k in range(3):
            save(folder / f"{file_name(trial)}_{STEMS[k]}.ogg",
                 found[k:k + 1].numpy() / max(1.0, float(found[k].abs().max())), SAMPLE_RATE)


def keep_truth(folder, stems):
    "The same of the truth, with the mixture last."
    waves = torch.cat([stems[:3], stems.sum(0)[None]])
    specs = stft(waves, N_FFT, HOP)
    with atomic_path(folder / "truth.npz") as tmp:
        np.savez_compressed(tmp, estimate=picture(specs, specs[-1].abs().max()))
    for name, wave in zip((*STEMS[:3], "mixture"), waves):
        save(folder / f"truth_{name}.ogg", wave[None].numpy(), SAMPLE_RATE)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--bank", required=True, help="note bank to train on, 22050 Hz")
    parser.add_argument("--unheard", required=True, help="note bank of a soundfont that is not in it")
    parser.add_argument("--pieces", default=None, help="a piece bank; the one of the package when left out")
    parser.add_argument("--count", type=int, default=32, help="mixtures in each test set")
    parser.add_argument("--only", nargs="*", default=[trial.name for trial in TRIALS])
    parser.add_argument("--depth", action="store_true",
                        help="only measure how much the deep half of the paper's network does")
    parser.add_argument("--out", default=str(LOGS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    bank, held_out = NoteBank.load(args.bank), NoteBank.load(args.unheard)
    pieces = (PieceBank.load(args.pieces) if args.pieces else PieceBank.load()).split()
    weights = dict(FluidR3_GM=1.5, MuseScore_General=1.5, vsco_and_others=1.2, salamander=1.2, freesound_allan764=0.8,
                   invented=1.0)
    data = Mixtures(pieces["train"], bank_player(bank), balanced(bank, weights), sample_rate=SAMPLE_RATE,
                    seconds=SECONDS, seed=SEED,
                    absent=0.2, other=0.15, augmentation=(Equaliser(0.5, 3.0), Gain(), Room(0.2), WhiteNoise()))

    def test(font, groups):
        trio = {name: [i for i in font.of(name) if i.split("/")[0] in groups] for name in STEMS[:3]}
        mixtures = Mixtures(pieces["test"], bank_player(font, shift=0.0, cents=0.0), trio, sample_rate=SAMPLE_RATE,
                            seconds=4.0, absent=0.2, other=0.0, augmentation=DRY, seed=100)
        return [mixtures[i]["stems"] for i in range(args.count)]

    groups = lambda font: sorted({instance.split("/")[0] for name in font.instruments for instance in font.of(name)})
    sets = {"seen soundfont": test(bank, SEEN_SOUNDFONTS), "held-out soundfont": test(held_out, groups(held_out))}
    cache = {}
    def items(i):
        if i not in cache: cache[i] = data[int(i)]["stems"]
        return cache[i]

    path = Path(args.out) / "paper_unet.json"
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    log = read_json(path, dict(trials={}))
    shown = next(s for s in sets["seen soundfont"] if all(s[k].any() for k in range(3)))
    if args.depth:
        log["depth"] = dict(bins=[2048 >> height for height in range(9)], bank=repr(bank), torch=torch.__version__)
        for trial in TRIALS:
            if trial.name not in ("paper", "paper, norm only"): continue
            mixture, network = shown.sum(0), build(trial).eval()
            log["depth"][trial.name] = dict(untrained=depth(network, trial, mixture),
                                            trained=depth(train(trial, items)[0], trial, mixture))
        write_json(path, log)
        return print(json.dumps(log["depth"], indent=1))
    log |= dict(command="python benchmarks/paper_unet.py", seed=SEED, items=ITEMS, epochs=EPOCHS, batch=BATCH,
                learning_rate=LEARNING_RATE,
                seconds=SECONDS, sample_rate=SAMPLE_RATE, n_fft=N_FFT, hop=HOP, stems=STEMS, test_mixtures=args.count,
                bank=groups(bank), seen=SEEN_SOUNDFONTS, held_out=groups(held_out), hardware="one CPU core",
                versions=dict(python=platform.python_version(), torch=torch.__version__, instsep=__version__))
    if "baselines" not in log: log["baselines"] = baselines(sets)
    if "silence" not in log: log["silence"] = silence(items(i) for i in range(ITEMS))
    keep_truth(folder, shown)
    for trial in TRIALS:
        if trial.name not in args.only or trial.name in log["trials"]: continue
        network, curve, seconds = train(trial, items)
        log["trials"][trial.name] = dict(asdict(trial), parameters=sum(p.numel() for p in network.parameters()),
                                         cpu_seconds=round(seconds, 1),
                                         loss_every_20_steps=curve, scores=evaluate(network, trial, sets))
        keep(folder, network, trial, shown)
        write_json(path, log)
        total = {label: next(r for r in rows if r["stem"] == "all" and r["measure"] == "si_sdr_improvement")
                 for label, rows in log["trials"][trial.name]["scores"].items()}
        print(f"{trial.name}: " + ", ".join(f"{label} {r['mean']:+.1f} dB (median {r['median']:+.1f}, n {r['n']})"
                                            for label, r in total.items()), flush=True)


if __name__ == "__main__": main()
