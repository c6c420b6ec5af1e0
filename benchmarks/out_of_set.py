"""Melody instruments that have no stem: how often a clarinet is made of them, what merging adds to that, and what
asking whether a clarinet plays at all takes away again.

    OMP_NUM_THREADS=1 python benchmarks/out_of_set.py

makes the tables from the evidence in nbs/results/out_of_set_players.json. Options make evidence anew, each of its own
sets: --bank of mixtures on a note bank seen in training, --notes on recorded notes that are held out (by weights that
were trained without them, with a verifier of their own), --soundfont on a soundfont that is held out, --recordings of
the recordings (and what merging and the question do to their stems and notes).

Mixtures of 8 s, or as --seconds says: a clarinet, or another melody instrument, or both, or neither, beside guitar and
piano, each in every second mixture, with dynamics, rooms, equalisers and dirt. Evidence is what the transcriber outputs
for the clarinet and for out-of-set instruments: sums of onset and frame posteriors, frames in which each sounds and in
which both do, and the log odds of its verifier (`inference.verifier`; `verifier.py` trains it, and has left-out groups
of training).

An instrument *becomes a clarinet* where more than half of its notes' posteriors are the clarinet's, after
`reject_monophonic` and `merge_monophonic`. A clarinet is *lost* where the former takes all of its notes. Results:
benchmarks/results/out_of_set.md.
"""

from functools import partial
from unittest.mock import patch

import numpy as np
import torch

import common
from instsep.core import TRIO
from instsep.frames import (
    REJECTION_MARGIN, FrameModel, FrameTranscriber, frames_that_sound, least_log_odds, merge_monophonic)
from instsep.inference.verifier import distinct_keys, log_ratios
from instsep.metrics import format_table, note_scores, si_sdr_improvement
from instsep.mixtures import INSTRUMENTS, Equaliser, Room, _written_parts, soundfont_player
from instsep.music.notes import read_midi
from instsep.music.pieces import PieceBank
from instsep.separator import Separator
from instsep.sound.audio import load
from instsep.sound.notebank import NoteBank
from instsep.together import NoteInformedRNN
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
KINDS = dict(other=0.45, clarinet=0.33, both=0.17, neither=0.05)                # how often, of the tables' mixtures
# where more sounds together, two play; who sounds so much shorter is nobody; fewer notes are no evidence
OVERLAP, NEGLIGIBLE, LEAST = 0.3, 0.05, 3.0


# ---- evidence


def mixture(pieces, play, instances, seed: int, index: int, augmentation, kinds: dict = KINDS,
            seconds: float = SECONDS):
    "Kind, family, instances and sound (samples,); kinds: how often each is drawn."
    rng = np.random.default_rng([seed, index])
    families = {name: [member for member in members if instances.get(member)] for name, members in FAMILIES.items()}
    families = {name: members for name, members in families.items() if members}
    often = np.array([OFTEN[name] for name in families])
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    family = str(rng.choice(list(families), p=often / often.sum())) if kind in ("other", "both") else ""
    names = [name for name in ("guitar", "piano") if rng.random() < 0.5] or ["piano"] * (kind == "neither")
    names += ["clarinet"] * (kind in ("clarinet", "both")) + ([str(rng.choice(families[family]))] if family else [])
    rng.shuffle(names)
    written = "parts" if len(names) > 1 and rng.random() < 0.6 else "unrelated"
    lines = _written_parts(written, [INSTRUMENTS[name] for name in names], pieces, seconds, rng)
    for name in names:
        if name not in lines:
            lines |= _written_parts("unrelated", [INSTRUMENTS[name]], pieces, seconds, rng)
    used, stems, size = {}, [], int(seconds * RATE)
    for name, (notes, _) in lines.items():
        groups: dict[str, list[str]] = {}                                       # each soundfont and folder as often
        for instance in instances[name]:
            groups.setdefault(instance.split("/")[0], []).append(instance)
        used[name] = str(rng.choice(groups[str(rng.choice(list(groups)))]))
        played = humanize_phrases(notes, INSTRUMENTS[name], rng)
        stems.append(play(played, INSTRUMENTS[name], used[name], seconds, rng))
    stems = np.stack([np.pad(stem[:size], (0, max(0, size - len(stem)))) for stem in [*stems, np.zeros(size)]])
    for transform in augmentation:
        stems = transform(stems.astype(np.float32), RATE, rng)
    return kind, family, used, stems.sum(0) / max(1.0, np.abs(stems.sum(0)).max() / 0.95)


@torch.inference_mode()
def asked_of(model: FrameModel, sound: np.ndarray):  # (samples,), at the model's rate
    "Log odds of the verifier, if there is one, and what it is shown."
    short, spectrum = model.relative_magnitudes(torch.from_numpy(sound.astype(np.float32))[None])
    logits, read = model.network.logits_and_read(short, spectrum)
    shown = posteriors, places, weights, sums, held = model.network.shown_to_verifier(logits[0], read[0], spectrum[0])
    ask = model.network.verifier
    return (float(ask(places, weights, log_ratios(sums)[None])) if ask is not None and len(places) else 0.0), *shown


def evidence_of(model: FrameModel, sound: np.ndarray) -> dict:  # (samples,), at the model's rate
    "Sums for the clarinet and for out-of-set instruments, in this order; log odds that a clarinet plays."
    log_odds, posteriors, _, _, sums, held = asked_of(model, sound)
    sounds, together = frames_that_sound(posteriors[1])
    return dict(onsets=[round(value, 2) for value in sums[0].tolist()],
                frames=[round(value, 1) for value in sums[1].tolist()], sounds=sounds, together=together,
                keys=round(distinct_keys(held), 2), log_odds=round(log_odds, 3))


def rows_of_mixtures(label, model, pieces, play, instances, args, augmentation=HELD_OUT_AUGMENTATION):
    label += f", {args.seconds:g} s" if args.seconds != SECONDS else ""
    for index in range(args.items):
        kind, family, used, sound = mixture(pieces, play, instances, args.seed, index, augmentation,
                                            seconds=args.seconds)
        melody = {name: instance for name, instance in used.items() if name not in ("guitar", "piano")}
        # a soundfont's instances are numbers of programs
        groups = sorted({label if instance.isdigit() else instance.split("/")[0] for instance in melody.values()})
        yield dict(set=label, kind=kind, family=family, groups=groups,
                   instrument=next((name for name in melody if name != "clarinet"), "")) | evidence_of(model, sound)
        print(f"{label}: {index + 1} of {args.items}", flush=True)


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
                                 args, PERFORMED_AUGMENTATION)
    if args.notes:
        bank = common.recorded_bank(args.notes, BANKS, sample_rate=RATE)
        instances = {name: bank.of(name) for name in bank.instruments}
        held_out = FrameModel.from_pretrained(common.HELD_OUT_WEIGHTS / "trio-notes")
        rows += rows_of_mixtures(SETS["notes"], held_out, pieces["valid"], expressive_player(bank), instances, args)
    if args.soundfont:
        programs = {name: [str(program) for program in about.programs] for name, about in INSTRUMENTS.items()}
        rows += rows_of_mixtures(SETS["soundfont"], model, pieces["valid"], soundfont_player(args.soundfont, RATE),
                                 programs, args)
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


def ways(folder) -> list[dict]:
    "Of recordings with a melody instrument: refined stems, and the notes, in other ways than those that ship, too."
    transcriber, separator, rows = FrameTranscriber.from_pretrained(), Separator.from_pretrained("trio-informed"), []
    inside = transcriber.network.network, separator.network.notes
    verifiers = [network.verifier for network in inside]
    for path, _, stems in common.recordings(folder):
        melodies = sorted(set(stems) - {"guitar", "piano"})
        if not melodies: continue
        mixture, midi = sum(stems.values()), path / "all_notes.mid"
        for ratio, asked in ((2.0, False), (1.0, False), (2.0, True)):
            for network, verifier in zip(inside, verifiers): network.verifier = verifier if asked else None
            with patch("instsep.frames.merge_monophonic", partial(merged, ratio)):
                notes, found = transcriber(mixture, 44100, progress=False), separator.separate(mixture, 44100)
            scores = note_scores(read_midi(midi), notes) if midi.exists() else {}
            row = {"recording": path.name.split("_")[0], "melody": " and ".join(melodies), "ratio": f"{ratio:g}",
                   "asked": "yes" if asked else "no"}
            for title, name, players in (("clarinet's stem, dB", "clarinet", {"clarinet"} & set(stems)),
                                         ("residual, dB", "residual", set(stems) - set(TRIO))):
                row[title] = float(si_sdr_improvement(found[name][0], sum(stems[one] for one in players)[0],
                                                      mixture[0])) if players else None
            rows.append(row | {"multi-instrument onset F1": scores.get("multi_instrument_onset_f1"),
                               "onset F1": scores.get("onset_f1")})
            print(rows[-1], flush=True)
    return rows


# ---- what it tells


def joined(row: dict) -> dict:
    "With numbers of notes, the clarinet's share, and whether the two take turns, for either rule."
    onsets, sounds = np.array(row["onsets"], float), sorted(row["sounds"])
    notes, overlaps = float(onsets.sum()), row["together"] >= OVERLAP * max(1.0, sounds[0])
    return row | dict(notes=notes, onsets=onsets, share=float(onsets[0]) / max(notes, 1e-9),
                      alternate=notes >= LEAST and not overlaps,
                      alone=not overlaps or sounds[0] < NEGLIGIBLE * sounds[1])


def lost(row: dict, margin: float | None) -> bool:
    "Does the clarinet lose its notes, where it is asked with this margin?"
    return margin is not None and row["alone"] and row["log_odds"] < least_log_odds(row["keys"], margin=margin)


def share_of_clarinet(row: dict, ratio: float, margin: float | None = None) -> float:
    "Of all onsets of the two, after both rules."
    if lost(row, margin): return 0.0
    return 1.0 if row["alternate"] and row["onsets"][1] < ratio * row["onsets"][0] else row["share"]


def counted(rows: list[dict], ways: dict[str, tuple]) -> tuple[list[dict], list[dict]]:
    "By set, and by family over all sets; ways: title -> ratio of merging, margin of asking."
    rows = [row for row in map(joined, rows) if row["set"] != SETS["recordings"] and row["notes"] >= LEAST]
    def become(some):
        return {name: sum(share_of_clarinet(row, *way) > 0.5 for row in some) for name, way in ways.items()}
    sets, families = [], []
    for label in dict.fromkeys(row["set"] for row in rows):
        others, clarinets = ([row for row in rows if (row["set"], row["kind"]) == (label, kind)]
                             for kind in ("other", "clarinet"))
        sets.append({"set": label, "": "others that become a clarinet", "n": len(others)} | become(others))
        shares = {name: float(np.mean([share_of_clarinet(row, *way) for row in clarinets]))
                  for name, way in ways.items()}
        sets.append({"set": label, "": "clarinets' share of their notes", "n": len(clarinets)} | shares)
        sets.append({"set": label, "": "clarinets lost", "n": len(clarinets)} | {
            name: sum(lost(row, margin) for row in clarinets) for name, (_, margin) in ways.items()})
    for length in dict.fromkeys(length_of(row["set"]) for row in rows):
        for family in FAMILIES:
            some = [row for row in rows if (row["kind"], row["family"], length_of(row["set"])) == (
                "other", family, length)]
            families.append({"seconds": length, "family": family, "n": len(some)} | become(some))
    return sets, families


def length_of(label: str) -> str:
    "Of the mixtures of a set: its name has it where it is not the usual one."
    return label.rpartition(", ")[2].removesuffix(" s") if ", " in label else f"{SECONDS:g}"


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--pieces", default=common.PIECES)
    parser.add_argument("--bank")
    parser.add_argument("--notes")
    parser.add_argument("--soundfont")
    parser.add_argument("--recordings")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of a mixture that is made")
    parser.add_argument("--items", type=int, default=150, help="mixtures of each set that is made")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    log, new = common.read_json(LOG, dict(evidence=[])), new_rows(args)
    log["about"] = ("What benchmarks/out_of_set.py makes its tables from: mixtures of 8 s, what the transcriber "
                    "trio-notes outputs for the clarinet and for out-of-set instruments, and the log odds of its "
                    "verifier. training: a bank seen in training, by both; the others are held out: recorded notes by "
                    "weights from before they were trained with.")
    rows = [row for row in log["evidence"] if row["set"] not in {row["set"] for row in new}] + new
    sets = list(SETS.values())
    rows.sort(key=lambda row: (", " in row["set"], sets.index(row["set"].split(", ")[0])))
    common.write_json(LOG, log | dict(evidence=rows), indent=None)
    if args.recordings: log["ways"] = ways(args.recordings)
    separator = NoteInformedRNN
    sets, families = counted(rows, {
        "not merged": (0.0, None), "ratio 2": (2.0, None), "ratio 1": (1.0, None),
        "separator": (separator.max_note_ratio, separator.rejection_margin), "transcriber": (1.0, REJECTION_MARGIN),
        f"margin {separator.rejection_margin:g}": (1.0, separator.rejection_margin)})
    recordings = [dict(recording=row["groups"][0].split("_")[0], melody=row["kind"], notes=round(row["notes"]),
                       **{"clarinet's share": row["share"], "log odds": row["log_odds"]})
                  for row in map(joined, rows) if row["set"] == SETS["recordings"]]
    tables = {"Merging, and asking": sets, "Others that become a clarinet, by family": families,
              "Log odds of whole recordings": recordings,
              "Recordings with a melody instrument": log.get("ways", [])}
    found = dict(about=log["about"], sets=sets, families=families, recordings=recordings,
                 ways=log.get("ways", []), evidence=rows)
    common.write_json(LOG, found, indent=None)
    text = "\n\n".join(["# A clarinet that is none", "`python benchmarks/out_of_set.py`",
                        *(part for title, table in tables.items()
                          for part in (f"## {title}", format_table(table, digits=2)))])
    common.write_text(common.RESULTS / "out_of_set.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
