"""Melody instruments that have no stem: how often a clarinet is made of them, what merging adds to that, and whether a
recording's notes together tell a clarinet from another instrument.

    OMP_NUM_THREADS=1 python benchmarks/out_of_set.py

makes the tables from the evidence in nbs/results/out_of_set_players.json. Options make evidence anew, each of its own
sets: --bank of mixtures on a note bank seen in training, --notes on recorded notes that are held out, --soundfont on a
soundfont that is held out, --recordings of the recordings (and, of those with a clarinet, what the ratio of merging
does to its stem and to the notes).

Mixtures of 8 s: a clarinet, or another melody instrument, or both, or neither, beside guitar and piano, each in every
second mixture, with dynamics, rooms, equalisers and dirt. Evidence is what the transcriber outputs for the clarinet and
for out-of-set instruments: sums of onset and frame posteriors, frames in which each sounds and in which both do, and
the mean of what the head reads, over all their notes.

Merging: an instrument *becomes a clarinet* where more than half of its notes' posteriors are the clarinet's, after
`merge_monophonic`. The check, an experiment that does not ship: a logistic regression of the mean features and of the
clarinet's share, with a bias that kept all clarinets of the sets here with the weights before. Results:
benchmarks/results/out_of_set.md.
"""

import math
from functools import partial
from unittest.mock import patch

import numpy as np
import torch

import common
from instsep.frames import FrameModel, FrameTranscriber, merge_monophonic
from instsep.metrics import format_table, note_scores, si_sdr_improvement
from instsep.mixtures import INSTRUMENTS, Equaliser, Room, _written_parts, soundfont_player
from instsep.music.notes import read_midi
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.audio import load
from instsep.sound.notebank import NoteBank
from instsep.training.performance import (
    PERFORMED_AUGMENTATION, RecordingDirt, UnequalGain, expressive_player, humanize_phrases)

LOG, RATE, SECONDS = common.LOGS / "out_of_set_players.json", 22050, 8.0
HELD_OUT_AUGMENTATION = (Equaliser(0.3, 3.0), UnequalGain(), Room(0.35), RecordingDirt())
FAMILIES = dict(
    flute=4 * ["flute"] + ["piccolo", "recorder", "pan-flute", "ocarina", "shakuhachi"],
    reed=3 * ["oboe"] + ["english-horn", "bassoon"], saxophone=3 * ["saxophone"] + ["soprano-sax", "baritone-sax"],
    strings=3 * ["violin"] + ["viola", "cello"], brass=2 * ["trumpet"] + ["french-horn", "trombone", "muted-trumpet"],
    voice=["voice", "choir"])
OFTEN = dict(flute=3.0, reed=2.0, saxophone=2.5, strings=2.0, brass=1.5, voice=1.0)
BANKS = dict(clarinet=("iowa_mis/clarinet",), guitar=("iowa_mis/guitar_nylon", "discord_martin_hd28/guitar_steel"),
             piano=("vcsl_upright/piano", "freepats_kw/piano"),
             **{name: (f"iowa_mis/{folder}",) for name, folder in
                dict(flute="flute", oboe="oboe", bassoon="bassoon", violin="violin", viola="viola", cello="cello",
                     trumpet="trumpet", **{"french-horn": "horn"}).items()})
SETS = dict(training="training", notes="held-out recorded notes", soundfont="held-out soundfont",
            recordings="recordings")
RATIOS = (2.0, 1.5, 1.0, 0.5, 0.0)          # of merge_monophonic
OVERLAP, LEAST = 0.3, 3.0       # where more sounds together, two play; fewer notes are no evidence
STRENGTH, SHARES_COUNT = 0.002, 2.0         # of the check: how little its weights are held back, and shares less
BIAS, CAUTION = 0.25, 2.5                   # to be on the safe side, and over the root of the number of notes


# ---- evidence


def mixture(pieces, play, instances, seed: int, index: int, augmentation):
    "Kind, family, instances and sound (samples,)."
    rng = np.random.default_rng([seed, index])
    families = {name: [member for member in members if instances.get(member)] for name, members in FAMILIES.items()}
    families = {name: members for name, members in families.items() if members}
    often = np.array([OFTEN[name] for name in families])
    kind = str(rng.choice(["other", "clarinet", "both", "neither"], p=[0.45, 0.33, 0.17, 0.05]))
    family = str(rng.choice(list(families), p=often / often.sum())) if kind in ("other", "both") else ""
    names = [name for name in ("guitar", "piano") if rng.random() < 0.5] or ["piano"] * (kind == "neither")
    names += ["clarinet"] * (kind in ("clarinet", "both")) + ([str(rng.choice(families[family]))] if family else [])
    rng.shuffle(names)
    written = "parts" if len(names) > 1 and rng.random() < 0.6 else "unrelated"
    lines = _written_parts(written, [INSTRUMENTS[name] for name in names], pieces, SECONDS, rng)
    for name in names:
        if name not in lines:
            lines |= _written_parts("unrelated", [INSTRUMENTS[name]], pieces, SECONDS, rng)
    used, stems, size = {}, [], int(SECONDS * RATE)
    for name, (notes, _) in lines.items():
        groups: dict[str, list[str]] = {}                                       # each soundfont and folder as often
        for instance in instances[name]:
            groups.setdefault(instance.split("/")[0], []).append(instance)
        used[name] = str(rng.choice(groups[str(rng.choice(list(groups)))]))
        played = humanize_phrases(notes, INSTRUMENTS[name], rng)
        stems.append(play(played, INSTRUMENTS[name], used[name], SECONDS, rng))
    stems = np.stack([np.pad(stem[:size], (0, max(0, size - len(stem)))) for stem in [*stems, np.zeros(size)]])
    for transform in augmentation:
        stems = transform(stems.astype(np.float32), RATE, rng)
    return kind, family, used, stems.sum(0) / max(1.0, np.abs(stems.sum(0)).max() / 0.95)


@torch.inference_mode()
def evidence_of(model: FrameModel, sound: np.ndarray) -> dict:  # (samples,), at the model's rate
    "Sums for the clarinet and for out-of-set instruments, in this order; features: their mean over all notes of both."
    read = []
    hook = model.network.pitch_layers.register_forward_hook(lambda module, inputs, output: read.append(output))
    onset, frame = model(torch.from_numpy(sound.astype(np.float32))[None])[0, :2, [0, -1]].sigmoid()
    hook.remove()
    features = torch.nn.functional.layer_norm(read[0][0], read[0].shape[-1:])   # (pitches, steps, width)
    loudest, pitch = frame.max(1)                                               # (2, frames)
    sounds, played = loudest > 0.5, frame.sum(0)                                # played: (pitches, frames)
    played = torch.nn.functional.pad(played * (played > 0.4), (0, -played.shape[1] % features.shape[1]))
    played = played.unflatten(1, (features.shape[1], -1)).sum(-1)               # (pitches, steps)
    mean = torch.einsum("psw,ps->w", features, played) / played.sum().clamp_min(1e-9)
    rounded = lambda values, digits: [round(float(value), digits) for value in values]
    return dict(features=rounded(mean.reshape(2, -1).mean(0), 2),               # widening made units in pairs
                weight=round(float(played.sum()), 1), onsets=rounded(onset.sum((1, 2)), 2),
                frames=rounded(frame.sum((1, 2)), 1), sounds=sounds.sum(1).tolist(),
                together=int((sounds.all(0) & (pitch[0] != pitch[1])).sum()))


def rows_of_mixtures(label, model, pieces, play, instances, count, seed, augmentation=HELD_OUT_AUGMENTATION):
    for index in range(count):
        kind, family, used, sound = mixture(pieces, play, instances, seed, index, augmentation)
        melody = {name: instance for name, instance in used.items() if name not in ("guitar", "piano")}
        # a soundfont's instances are numbers of programs
        groups = sorted({label if instance.isdigit() else instance.split("/")[0] for instance in melody.values()})
        yield dict(set=label, kind=kind, family=family, groups=groups,
                   instrument=next((name for name in melody if name != "clarinet"), "")) | evidence_of(model, sound)
        print(f"{label}: {index + 1} of {count}", flush=True)


def new_rows(args) -> list[dict]:
    "What the options ask for."
    common.register_others()
    model, rows, pieces = FrameModel.from_pretrained(), [], {}
    if args.bank or args.notes or args.soundfont:
        pieces = PieceBank.load(args.pieces).split()
    if args.bank:
        bank = NoteBank.load(args.bank)
        instances = {name: bank.of(name) for name in bank.instruments}
        rows += rows_of_mixtures(SETS["training"], model, pieces["train"], expressive_player(bank), instances,
                                 args.items, args.seed, PERFORMED_AUGMENTATION)
    if args.notes:
        bank = common.recorded_bank(args.notes, BANKS, sample_rate=RATE)
        instances = {name: bank.of(name) for name in bank.instruments}
        rows += rows_of_mixtures(SETS["notes"], model, pieces["valid"], expressive_player(bank), instances,
                                 args.items, args.seed)
    if args.soundfont:
        programs = {name: [str(program) for program in about.programs] for name, about in INSTRUMENTS.items()}
        rows += rows_of_mixtures(SETS["soundfont"], model, pieces["valid"], soundfont_player(args.soundfont, RATE),
                                 programs, args.items, args.seed)
    if args.recordings:
        for path, _, stems in common.recordings(args.recordings):
            others = sorted(set(stems) - {"clarinet", "guitar", "piano"})
            kind = ("neither", "clarinet", "other", "both")[2 * bool(others) + ("clarinet" in stems)]
            sound = load(path / "mixture.flac", sample_rate=RATE, mono=True)[0][0]
            rows.append(dict(set=SETS["recordings"], kind=kind, family="", groups=[path.name],
                             instrument=" ".join(others)) | evidence_of(model, sound))
    return rows


def merged(ratio: float, logits, monophonic, **others):
    "`merge_monophonic` with this ratio, whatever was asked for."
    return merge_monophonic(logits, monophonic, max_note_ratio=ratio)


def ratios(folder) -> list[dict]:
    "Of recordings with a clarinet: its refined stem, and the notes, with other ratios of merging."
    transcriber, separator, rows = FrameTranscriber.from_pretrained(), Separator.from_pretrained("trio-informed"), []
    for path, _, stems in common.recordings(folder):
        if "clarinet" not in stems: continue
        mixture, midi = sum(stems.values()), path / "all_notes.mid"
        for ratio in RATIOS[:3]:
            merge = partial(merged, ratio)
            with patch("instsep.frames.merge_monophonic", merge), patch("instsep.together.merge_monophonic", merge):
                notes, found = transcriber(mixture, 44100, progress=False), separator.separate(mixture, 44100)
            scores = note_scores(read_midi(midi), notes) if midi.exists() else {}
            gain = si_sdr_improvement(found["clarinet"][0], stems["clarinet"][0], mixture[0])
            rows.append({"recording": path.name.split("_")[0], "ratio": f"{ratio:g}",
                         "clarinet's stem, dB": float(gain),
                         "multi-instrument onset F1": scores.get("multi_instrument_onset_f1"),
                         "onset F1": scores.get("onset_f1")})
            print(rows[-1], flush=True)
    return rows


# ---- what it tells


def joined(rows: list[dict]) -> dict:
    "These mixtures, as if they were one recording."
    total = {key: sum(np.array(row[key], float) for row in rows)
             for key in ("weight", "onsets", "frames", "sounds", "together")}
    features = sum(row["weight"] * np.array(row["features"]) for row in rows) / max(total["weight"], 1e-9)
    odds = [math.log((own + 0.5) / (other + 0.5)) for own, other in (total["onsets"], total["frames"])]
    notes = float(total["onsets"].sum())
    return rows[0] | dict(
        inputs=np.array([*features, *odds]), notes=notes, onsets=total["onsets"],
        share=total["onsets"][0] / max(notes, 1e-9),
        alternate=bool(notes >= LEAST and total["together"] < OVERLAP * max(1.0, total["sounds"].min())))


def share_of_clarinet(row: dict, ratio: float) -> float:
    "Of all onsets of the two, after merging."
    return 1.0 if row["alternate"] and row["onsets"][1] < ratio * row["onsets"][0] else row["share"]


def merging(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    "By set, and by family over all sets."
    rows = [joined([row]) for row in rows if row["set"] != SETS["recordings"]]
    rows = [row for row in rows if row["notes"] >= LEAST]
    sets, families, names = [], [], {ratio: f"ratio {ratio:g}" if ratio else "not merged" for ratio in RATIOS}

    def become(some):
        return {name: sum(bool(share_of_clarinet(row, ratio) > 0.5) for row in some)
                for ratio, name in names.items()}

    for label in dict.fromkeys(row["set"] for row in rows):
        others, clarinets = ([row for row in rows if (row["set"], row["kind"]) == (label, kind)]
                             for kind in ("other", "clarinet"))
        sets.append({"set": label, "": "others that become a clarinet", "n": len(others)} | become(others))
        shares = {name: float(np.mean([share_of_clarinet(row, ratio) for row in clarinets]))
                  for ratio, name in names.items()}
        sets.append({"set": label, "": "clarinets' share of their notes", "n": len(clarinets)} | shares)
    for family in FAMILIES:
        some = [row for row in rows if (row["kind"], row["family"]) == ("other", family)]
        families.append({"family": family, "n": len(some)} | become(some))
    return sets, families


def fitted(rows: list[dict]) -> tuple[np.ndarray, float]:
    "Weights, in the units of the evidence, and bias. What is taken for a clarinet counts most."
    from sklearn.linear_model import LogisticRegression
    rows = [row for row in rows if row["kind"] in ("clarinet", "other") and row["alternate"]]
    inputs, clarinet = np.array([row["inputs"] for row in rows]), np.array([row["kind"] == "clarinet" for row in rows])
    weight = np.array([1.0 if row["kind"] == "clarinet" else 0.3 + row["share"] for row in rows])
    weight /= np.where(clarinet, weight[clarinet].sum(), weight[~clarinet].sum())
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-9
    spread[-2:] /= SHARES_COUNT
    model = LogisticRegression(C=STRENGTH, max_iter=500)
    model.fit((inputs - mean) / spread, clarinet, sample_weight=weight * len(rows) / 2)
    return model.coef_[0] / spread, float(model.intercept_[0] - model.coef_[0] @ (mean / spread))


def longer(rows: list[dict], clips: int) -> list[dict]:
    "Recordings of so many mixtures with the same instance (and its variants) each."
    if clips == 1:
        return [joined([row]) for row in rows]
    alike: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["kind"] in ("clarinet", "other"):
            alike.setdefault((row["set"], row["kind"], row["instrument"], *row["groups"]), []).append(row)
    rng = np.random.default_rng(0)
    return [joined([some[k] for k in rng.choice(len(some), clips, replace=False)])
            for some in alike.values() if len(some) >= clips for _ in range(2 * len(some))]


def checked(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    "By set, and on the recordings. Each bank of the set that it was fitted to is scored by a check fitted without it."
    training = [joined([row]) for row in rows if row["set"] == SETS["training"]]
    without = {group: fitted([row for row in training if group not in row["groups"]])
               for group in sorted({group for row in training for group in row["groups"]})}
    with_all = fitted(training)

    def score(row):
        weight, bias = without[row["groups"][0]] if row["set"] == SETS["training"] and row["groups"] else with_all
        return float(np.dot(row["inputs"], weight) + bias + BIAS + CAUTION / math.sqrt(max(row["notes"], 1)))

    table, names = [], dict(clarinet="clarinets taken away", both="clarinets taken away beside another instrument",
                           other="false clarinets caught")
    for clips in (1, 3):
        some = longer([row for row in rows if row["set"] != SETS["recordings"]], clips)
        for label in dict.fromkeys(row["set"] for row in some):
            line = {"set": label, "seconds": int(clips * SECONDS)}
            for kind, name in names.items():
                # with fewer of its notes at the clarinet's, another instrument becomes none
                ours = [row for row in some if (row["set"], row["kind"]) == (label, kind)
                        and (kind != "other" or row["share"] > 1 / 3)]
                gone = sum(row["alternate"] and score(row) < 0 for row in ours)
                line |= {name: f"{gone} of {len(ours)}" if ours else None}
            table.append(line)
    recordings = [dict(recording=row["groups"][0], who=row["kind"], notes=round(row["notes"]),
                       **{"clarinet's share": row["share"]},
                       score=score(row) if row["alternate"] else None)
                  for row in longer([row for row in rows if row["set"] == SETS["recordings"]], 1)]
    return table, recordings


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--pieces", default=common.PIECES)
    parser.add_argument("--bank")
    parser.add_argument("--notes")
    parser.add_argument("--soundfont")
    parser.add_argument("--recordings")
    parser.add_argument("--items", type=int, default=150, help="mixtures of each set that is made")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    log, new = common.read_json(LOG, dict(evidence=[])), new_rows(args)
    if args.recordings: log["ratios"] = ratios(args.recordings)
    rows = [row for row in log["evidence"] if row["set"] not in {row["set"] for row in new}] + new
    sets, families = merging(rows)
    check, recordings = checked(rows)
    tables = {"Merging": sets, "Merging, recordings with a clarinet": log.get("ratios", []),
              "Others that become a clarinet, by family": families, "Taken away by the check": check,
              "The check on recordings: below 0 the clarinet would be taken away": recordings}
    found = dict(merging=sets, families=families, check=check, recordings=recordings, evidence=rows)
    common.write_json(LOG, log | found, indent=None)
    text = "\n\n".join(["# A clarinet that is none", "`python benchmarks/out_of_set.py`",
                        *(part for title, table in tables.items()
                          for part in (f"## {title}", format_table(table, digits=2)))])
    common.write_text(common.RESULTS / "out_of_set.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
