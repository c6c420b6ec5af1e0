"""What recordings carry besides music, one kind at a time: what it costs the transcriber and the separator.

    OMP_NUM_THREADS=1 python benchmarks/dirt.py --pieces data/pieces.npz

Mixtures of validation pieces, played exactly on a soundfont that no training heard (44.1 kHz, 8 s), as they are and
then with each kind of dirt: coded as MP3 and decoded, low-passed, clipped, with mains hum, rumble, a constant, white
noise, and with a speed that drifts. Notes are scored against what was played. Stems are scored against those that were
mixed, but where the speed drifts; the mixture's own SI-SDR, which dirt lowers, is given beside. Changes are means over
mixtures of the difference to the same mixture without dirt, with their standard error. Results go to
benchmarks/results/dirt.json and .md.
"""
import io

import numpy as np
import soundfile
import torch

from instsep.frames import FrameTranscriber
from instsep.metrics import format_table, note_scores, si_sdr
from instsep.mixtures import INSTRUMENTS, TRIO
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from common import (PIECES, RESULTS, arguments, exact_mixtures, processor, shipped_weights_id, test_soundfonts,
                    write_results)

RATE = 44100
MEASURES = dict(onset_f1="onset F1", multi_instrument_onset_f1="by instrument", onset_offset_f1="onset+offset F1")


# ---- dirt: (mixture (samples,), rng) -> (samples,)

def rms(wave): return np.sqrt(np.mean(wave ** 2)) + 1e-9


def mp3(level, rate=RATE):
    "Coded with this compression level of libsndfile, 0 for the best, and decoded again."
    def coded(wave, rng):
        file = io.BytesIO()
        soundfile.write(file, 0.5 * wave / np.abs(wave).max(), rate, format="MP3", compression_level=level,
                        bitrate_mode="CONSTANT")
        size = len(file.getvalue())
        file.seek(0)
        back = soundfile.read(file, dtype="float32")[0] * 2 * np.abs(wave).max()
        coded.kbps = round(8 * size / (len(wave) / rate) / 1000)
        return back[:len(wave)]
    return coded


def low_pass(hertz):
    def filtered(wave, rng):
        spectrum, frequency = np.fft.rfft(wave), np.fft.rfftfreq(len(wave), 1 / RATE)
        return np.fft.irfft(spectrum / np.sqrt(1 + (frequency / hertz) ** 24), len(wave))
    return filtered


def clip(decibels):  # how far below the peak
    def clipped(wave, rng):
        limit = np.abs(wave).max() * 10 ** (-decibels / 20)
        return np.clip(wave, -limit, limit)
    return clipped


def hum(decibels):   # below the mixture
    def hummed(wave, rng):
        time = np.arange(len(wave)) / RATE
        sound = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6.3)) / k for k in range(1, 6))
        return wave + sound * rms(wave) / rms(sound) * 10 ** (-decibels / 20)
    return hummed


def noise(decibels, falling=0.0):  # amplitude over frequency: white, or as rumble
    def noisy(wave, rng):
        frequency = np.maximum(np.fft.rfftfreq(len(wave), 1 / RATE), 10)
        sound = np.fft.irfft(np.fft.rfft(rng.normal(size=len(wave))) * frequency ** -falling, len(wave))
        return wave + sound * rms(wave) / rms(sound) * 10 ** (-decibels / 20)
    return noisy


def drift(cents, rate=RATE):
    def drifting(wave, rng):
        time = np.arange(len(wave)) / rate
        speed = 2 ** (cents / 1200 * np.sin(2 * np.pi * 0.3 * time + rng.uniform(0, 6.3)))
        position = np.cumsum(speed) - speed[0]
        return np.interp(position - (position - np.arange(len(wave))).mean(), np.arange(len(wave)), wave)
    return drifting


KINDS = {
    "none": lambda wave, rng: wave,
    "MP3, strong compression": mp3(0.9), "MP3, medium compression": mp3(0.8), "MP3, weak compression": mp3(0.6),
    "low-pass, 4 kHz": low_pass(4000), "low-pass, 8 kHz": low_pass(8000),
    "clipped 6 dB below the peak": clip(6), "clipped 12 dB below the peak": clip(12),
    "hum, -30 dB": hum(30), "hum, -15 dB": hum(15), "rumble, -15 dB": noise(15, 2.0),
    "a constant, as loud as the mixture": lambda wave, rng: wave + rms(wave),
    "white noise, -40 dB": noise(40), "white noise, -20 dB": noise(20),
    "speed drifts by 10 cents": drift(10), "speed drifts by 30 cents": drift(30),
}
ADDED = [kind for kind in KINDS if not kind.startswith("speed")]  # the stems are still where they were


def played(parts) -> list[Note]:
    return [Note(float(on), float(min(off, 8.0)), int(pitch), int(np.clip(round(velocity), 1, 127)),
                 INSTRUMENTS[name].programs[0])
            for name in TRIO for on, off, pitch, velocity in np.asarray(parts.get(name, np.zeros((0, 4)))).tolist()
            if 0 <= on < 7.98]


def change(values, base):
    difference = np.array(values) - np.array(base)
    return f"{difference.mean():+.2f} ± {difference.std(ddof=1) / np.sqrt(len(difference)):.2f}"


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank (instsep pieces)")
    parser.add_argument("--count", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    font = dict(test_soundfonts())["held-out soundfont"]
    data = exact_mixtures(font, PieceBank.load(args.pieces).split()["valid"], seed=910)
    transcriber, separator = FrameTranscriber.from_pretrained(), Separator.from_pretrained()
    rows = []
    for number in range(args.count):
        score, stems = data.item(number)
        truth, mixture = played(score.parts), stems[:3].sum(0)
        for kind, soil in KINDS.items():
            wave = soil(mixture.astype(np.float64), np.random.default_rng([number, 3])).astype(np.float32)
            scores = note_scores(truth, transcriber(wave[None], RATE, progress=False))
            row = dict(item=number, kind=kind) | {key: float(scores[key]) for key in MEASURES}
            if kind in ADDED:
                found = separator.separate(wave[None], RATE)
                sounding = [name for name, stem in zip(TRIO, stems) if stem.any()]
                if len(sounding) > 1:
                    own = {name: torch.from_numpy(stems[TRIO.index(name)]) for name in sounding}
                    heard = torch.from_numpy(wave)
                    row["si_sdr"] = float(np.mean([si_sdr(found[name][0], own[name]) for name in sounding]))
                    row["mixture_si_sdr"] = float(np.mean([si_sdr(heard, own[name]) for name in sounding]))
            rows.append(row)
        print(number, flush=True)
    of = lambda kind, key: [row[key] for row in rows if row["kind"] == kind and key in row]
    columns = MEASURES | dict(si_sdr="SI-SDR of stems, dB", mixture_si_sdr="of the mixture, dB")
    def cell(kind, key):
        if not of(kind, key): return ""
        return f"{np.mean(of(kind, key)):.2f}" if kind == "none" else change(of(kind, key), of("none", key))
    table = [dict(dirt=kind) | {name: cell(kind, key) for key, name in columns.items()} for kind in KINDS]
    kbps = {kind: soil.kbps for kind, soil in KINDS.items() if hasattr(soil, "kbps")}
    stated = ", ".join(f"{kind.split(', ')[1]} {rate}" for kind, rate in kbps.items())
    result = dict(command="python benchmarks/dirt.py --pieces data/pieces.npz", items=rows, kbps=kbps,
                  weights=shipped_weights_id(), machine=f"{processor()}, torch {torch.__version__}, one thread")
    write_results(RESULTS / "dirt", f"""# What recordings carry besides music

`{result["command"]}`

{args.count} mixtures of validation pieces, played exactly on a soundfont that no training heard, 8 s each. The first
row is without dirt; the others are what changes with it, mean ± standard error over the mixtures. MP3 in kb/s (mono):
{stated}.

{format_table(table)}
""", result)


if __name__ == "__main__": main()
