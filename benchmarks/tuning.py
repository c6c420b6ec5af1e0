"""Does a separator mind an ensemble that is tuned between the keys? The measurement of chapter 6 for any model.

    python benchmarks/tuning.py --model runs/openunmix_blstm/model --name openunmix_blstm

The same eight mixtures of held-out pieces, played faster and faster so that all pitches move by up to a
semitone. Writes nbs/results/tuning_<name>.json: improvement in SI-SDR for every stem at every step.
"""
import numpy as np

from instsep.metrics import si_sdr_improvement
from instsep.mixtures import TRIO
from instsep.music.pieces import CLASSICAL_WORKS, PieceBank
from instsep.separator import Separator
from instsep.sound.soundfont import default_soundfont
from instsep.tunings import detuned
from common import LOGS, arguments, exact_mixtures, write_json

RATE, STEPS = 22050, (0, 10, 25, 50, 75, 100)
HELD_OUT = ("String quartet K. 80", "Maple leaf rag", "Cavalcando", "Lumi miei, cari lumi", "Chorale BWV 36.8",
            "Chorale BWV 8.6", "Chorale BWV 245.15", "Gloria Ad ongni vento")


def main():
    parser = arguments(__doc__)
    parser.add_argument("--model", required=True, help="name, folder or id")
    parser.add_argument("--name", required=True, help="of the result")
    args = parser.parse_args()
    bank = PieceBank.from_music21([work for work in CLASSICAL_WORKS if work.title in HELD_OUT], progress=False)
    mixtures = exact_mixtures(default_soundfont(), list(bank), sample_rate=RATE, seconds=6.0, absent=0.0, seed=11)
    separator, scores = Separator.from_pretrained(args.model), {cents: [] for cents in STEPS}
    for index in [index for index in range(40) if mixtures.score(index).kind in ("parts", "unrelated")][:8]:
        stems = mixtures.item(index)[1][:3]
        for cents in STEPS:
            moved = detuned(stems, RATE, cents)
            mixture = moved.sum(0, keepdims=True)
            found = separator.separate(mixture, RATE, a4=separator.config.a4)     # not retuned
            estimate = np.stack([found[name][0].numpy() for name in TRIO])
            with np.errstate(invalid="ignore"):
                scores[cents] += si_sdr_improvement(estimate, moved, np.broadcast_to(mixture, moved.shape)).tolist()
    for cents, row in scores.items(): print(f"{cents:4d} cents: {np.nanmean(row):+.2f} dB")
    log = dict(command=f"python benchmarks/tuning.py --model FOLDER --name {args.name}",
               network=separator.config.network,
               improvement={cents: [round(x, 3) if np.isfinite(x) else None for x in row]
                            for cents, row in scores.items()})
    write_json(LOGS / f"tuning_{args.name}.json", log, indent=None)


if __name__ == "__main__": main()
