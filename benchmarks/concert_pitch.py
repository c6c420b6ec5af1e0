"""Stems of recordings that are tuned higher or lower: what a separator loses by it, and whether training helps.

    python benchmarks/concert_pitch.py --pieces data/pieces.npz --recordings ../shared/reference/recordings
    python benchmarks/concert_pitch.py ... "trained on" runs/pitch    # and other weights beside: a name and a folder

Validation pieces through a soundfont that no training used, 16 mixtures of 8 s, and the recordings with a clarinet,
20 s of each, are played faster or slower: every partial moves by so many cents (-32: A = 432 Hz; -101: A = 415 Hz,
where each note lies on a key again). Without refinement. Weights to set beside are trained by `drums.py train
--concert-pitch`. Results go to benchmarks/results/concert_pitch.json and .md.
"""

import numpy as np
import torch

from instsep.core import TRIO
from instsep.metrics import format_table, si_sdr_improvement
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.audio import resample
from common import (HELD_OUT_SOUNDFONT, PIECES, RESULTS, arguments, exact_mixtures, processor, recordings, soundfonts,
                    write_results)

CENTS, RECORDINGS, SECONDS, RATE = (0, -32, 32, -101), ("R01", "R02", "R03", "R08", "R09"), 20, 44100


def tuned(sound: np.ndarray, cents: float) -> torch.Tensor:  # (samples,) -> (fewer or more samples,)
    "Resampled, and played at the rate it had: faster or slower."
    return torch.from_numpy(resample(sound[None].astype(np.float32), RATE, RATE * 2 ** (-cents / 1200))[0])


def mixtures(args):  # set, {stem: (samples,)}
    pieces = PieceBank.load(args.pieces).split()["valid"]
    data = exact_mixtures(soundfonts()[HELD_OUT_SOUNDFONT], pieces, seed=912)
    for number in range(args.count):
        yield "held-out soundfont", {name: stem for name, stem in zip(data.stems, data.item(number)[1]) if stem.any()}
    for path, _, stems in recordings(args.recordings) if args.recordings else ():
        if path.name.startswith(RECORDINGS):
            yield path.name.split("_")[0], {name: np.asarray(stem[0])[:SECONDS * RATE] for name, stem in stems.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("weights", nargs="*", help="of separators to set beside the one that ships: names and folders")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank")
    parser.add_argument("--recordings", help="folder with recordings")
    parser.add_argument("--count", type=int, default=16, help="mixtures through the soundfont")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = {"trio-informed": "trio-informed"} | dict(zip(args.weights[::2], args.weights[1::2]))
    separators = {name: Separator.from_pretrained(folder) for name, folder in folders.items()}
    rows = []
    for label, stems in mixtures(args):
        if len(stems) < 2: continue                                                 # nothing to separate
        for cents in CENTS:
            moved = {name: tuned(stem, cents) for name, stem in stems.items()}
            mixture = torch.stack(list(moved.values())).sum(0)
            for weights, separator in separators.items():
                found = separator.separate(mixture[None], RATE, refine=False)
                rows += [dict(set=label, cents=cents, weights=weights, stem=name, gain=float(si_sdr_improvement(
                    found[name][0], stem, mixture))) for name, stem in moved.items() if name in TRIO]
        print(label, flush=True)
    table = []
    for label in dict.fromkeys(row["set"] for row in rows):
        for weights in separators:
            gains = {cents: [row["gain"] for row in rows if (row["set"], row["weights"], row["cents"]) == (
                label, weights, cents)] for cents in CENTS}
            table.append({"set": label, "weights": weights, "stems": len(gains[0])} | {
                f"{cents:+d} cents" if cents else "as it is": f"{np.mean(each):.1f} / {np.median(each):.1f}"
                for cents, each in gains.items()})
    command = "python benchmarks/concert_pitch.py --pieces PIECES --recordings RECORDINGS" + "".join(
        f' "{name}" FOLDER' for name in list(separators)[1:])
    write_results(RESULTS / "concert_pitch", f"""# Tuned higher or lower

`{command}`

SI-SDR improvement in dB without refinement, mean / median over stems:

{format_table(table)}
""", dict(command=command, table=table, rows=rows, machine=f"{processor()}, torch {torch.__version__}, one thread"))


if __name__ == "__main__": main()
