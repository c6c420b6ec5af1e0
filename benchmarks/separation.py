"""Score a separator: held-out pieces with a soundfont seen in training, with a held-out one, and recordings.

    python benchmarks/separation.py --model trio --recordings ../shared/reference/recordings

Every stem's SI-SDR improvement over the mixture stands beside the ideal ratio mask's (the oracle: true magnitudes, the
mixture's phase). A set whose soundfont or folder is not there is left out with a line. Results go to
benchmarks/results/separation_<name>.json and .md.
"""
import time
from pathlib import Path

import numpy as np
import torch

from instsep.metrics import format_table, stem_scores, summarise
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.spectral import oracle
from common import (HELD_OUT_SOUNDFONT, PIECES, RECORDINGS, RESULTS, SEEN_SOUNDFONT, TRIOS, arguments, exact_mixtures,
                    read_json, recordings, test_soundfonts, write_results)

PLAYERS = ("R08", "R09")  # mixtures of performances, not of single notes


def soundfont_items(soundfont, pieces, count, instruments):
    "Mixtures of the test pieces, played exactly: name, kind, {stem: (1, samples)}."
    data = exact_mixtures(soundfont, pieces, instruments=instruments)
    for i in range(count):
        score, stems = data.item(i)
        yield f"{i:03d}", score.kind, {name: stems[k:k + 1] for k, name in enumerate(instruments)}


def recording_items(folder):
    "The folders of recordings: name, kind, {stem: (1, samples)}."
    for path, about, stems in recordings(folder): yield path.name, about["kind"], stems


def score(model, items, label, given=False, refine=None):
    "Rows of stem scores; `given`: with `--instruments`, the instruments that play are given to the separator."
    rows = []
    for name, kind, stems in items:
        mixture = sum(stems.values())
        playing_names = [name for name in stems if stems[name].any()] if given else None
        found = {stem: sound.numpy()
                 for stem, sound in model.separate(mixture, 44100, instruments=playing_names, refine=refine).items()}
        # (1, samples)
        estimates = {name: found.get(name, np.zeros_like(mixture)) for name in (*model.config.instruments, "residual")}
        inside = {k: stems.get(k, np.zeros_like(mixture)) for k in model.config.instruments}
        outside = {k: v for k, v in stems.items() if k not in inside}
        best = oracle(mixture, np.stack([*inside.values(), sum(outside.values(), np.zeros_like(mixture))]), n_fft=4096,
                      hop=1024).numpy()
        scored = stem_scores({k: estimates[k] for k in inside}, inside, mixture, set=label, item=name, kind=kind)
        if outside:
            scored += stem_scores({"other": estimates["residual"]}, {"other": sum(outside.values())}, mixture,
                                  set=label, item=name, kind=kind)
        ideal = stem_scores(dict(zip([*inside, "other"], best)),
                            inside | ({"other": sum(outside.values())} if outside else {}), mixture)
        for row, ideal_row in zip(scored, ideal):
            if sum(s.any() for s in stems.values()) < 2:  # one instrument alone: nothing to separate, only to leak
                row["si_sdr_improvement"] = row["si_sdr"] = float("nan")
                ideal_row["si_sdr_improvement"] = float("nan")
            rows.append(row | dict(oracle_improvement=ideal_row["si_sdr_improvement"]))
    return rows


def main():
    parser = arguments(__doc__)
    parser.add_argument("--model", default="trio")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank, made by instsep pieces")
    parser.add_argument("--recordings", default=RECORDINGS)
    parser.add_argument("--count", type=int, default=40, help="mixtures per soundfont")
    parser.add_argument("--no-refine", action="store_true", help="without refinement on the recording")
    parser.add_argument("--table", action="store_true", help="only the tables, of rows that are there")
    parser.add_argument("--name", default=None, help="of the result; the model's name when left out")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    name = args.name or Path(args.model).name + "_no_refine" * args.no_refine
    place, refine = Path(args.out) / f"separation_{name}", False if args.no_refine else None
    if args.table: return report(place, name, args, read_json(f"{place}.json"))
    torch.set_num_threads(1)
    model = Separator.from_pretrained(args.model)
    bank = PieceBank.load(args.pieces)
    pieces = bank.split()["test"]
    rows, begun = [], time.process_time()
    for label, font in test_soundfonts():
        rows += score(model, soundfont_items(font, pieces, args.count, model.config.instruments), label, refine=refine)
    items = list(recording_items(args.recordings))
    for given in (False, True):
        rows += score(model, items, "recordings" + ", instruments given" * given, given, refine)
    about = dict(model=args.model, count=args.count, parameters=sum(p.numel() for p in model.parameters()),
                 torch=torch.__version__,
                 cpu_seconds=round(time.process_time() - begun, 1), seen=SEEN_SOUNDFONT, held_out=HELD_OUT_SOUNDFONT)
    report(place, name, args, dict(about, items=rows))


def report(place: Path, name: str, args, result: dict) -> None:
    "Tables of the rows in result[\"items\"], beside them."
    rows = [r | dict(set=r["set"].replace("recordings", "real players") if r["item"][:3] in PLAYERS else r["set"])
            for r in result["items"]]
    measures = ("input_si_sdr", "si_sdr", "si_sdr_improvement", "oracle_improvement", "leakage")
    mixtures = [r for r in rows if r["stem"] != "other" and (not r["item"].startswith("R")
                                                             or r["item"][:3] in TRIOS + PLAYERS)]
    table = []
    for label in dict.fromkeys(r["set"] for r in mixtures):
        chosen = [r for r in mixtures if r["set"] == label]
        for group in [*dict.fromkeys(r["stem"] for r in chosen), "all"]:
            part = [r for r in chosen if group in (r["stem"], "all")]
            line = {s["measure"]: s for s in summarise(part, by="set", measures=measures, total=None)}
            if not line["si_sdr_improvement"]["n"]: continue                    # who never plays there only leaks
            table.append({"set": label, "stem": group, "n": line["si_sdr_improvement"]["n"],
                          "input SI-SDR": line["input_si_sdr"]["mean"],
                          "instsep, mean": line["si_sdr_improvement"]["mean"],
                          "instsep, median": line["si_sdr_improvement"]["median"],
                          "oracle, mean": line["oracle_improvement"]["mean"],
                          "oracle, median": line["oracle_improvement"]["median"],
                          "leakage when absent": line["leakage"]["mean"]})
    kinds = []
    for label in dict.fromkeys(r["set"] for r in mixtures):
        for kind in dict.fromkeys(r["kind"] for r in mixtures if r["set"] == label):
            part = [r for r in mixtures if (r["set"], r["kind"]) == (label, kind)]
            line = {s["measure"]: s for s in summarise(part, by="set", measures=measures, total=None)}
            kinds.append({"set": label, "kind": kind, "n": line["si_sdr_improvement"]["n"],
                          "instsep, mean": line["si_sdr_improvement"]["mean"],
                          "oracle, mean": line["oracle_improvement"]["mean"]})
    single = [{k: r[k] for k in ("set", "item", "stem", "input_si_sdr", "si_sdr_improvement", "oracle_improvement",
                                 "leakage")}
              for r in rows if r["item"].startswith("R")]
    text = (f"# Separation: {name}\n\n`python benchmarks/separation.py --model {args.model} --count "
            f"{args.count}{' --no-refine' * args.no_refine}`\n\n"
            "SI-SDR improvement over the unprocessed mixture in dB (input SI-SDR: the mixture itself "
            "as the estimate), beside the ideal ratio mask with the mixture's phase (4096 bins). Recordings: R01 "
            "to R04; real players: R08 and R09. Leakage: an absent instrument's stem below the mixture, in dB. "
            "Instruments given: with `--instruments`; those that do not play have no stem then.\n\n"
            + format_table(table) + "\n\nBy kind of mixture:\n\n" + format_table(kinds)
            + ("\n\nRecordings one by one:\n\n" + format_table(single) if single else "") + "\n")
    write_results(place, text, dict(result, table=table, kinds=kinds))


if __name__ == "__main__": main()
