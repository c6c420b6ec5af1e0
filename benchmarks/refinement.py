"""What a recording teaches the separator: stems before and after refinement, and with the notes given.

    python benchmarks/refinement.py --pieces data/pieces.npz --notes ../shared/reference/notes --recordings
    ../shared/reference/recordings

Sets: the recordings (R01 to R06 assembled from single notes, R08 and R09 of real players), validation pieces through
a soundfont that training heard and one that it did not, and through recorded notes that it did not hear, played so
that no two notes of a pitch are alike (`lively`). What the separator outputs for each item is kept in --cache, a
folder for each state of its weights, so that refining in another way costs little: `--set NAME=VALUE` changes a
constant of `Refiner`, --label names the row. --taught adds rows whose templates begin as those of the true stems: what
is lost by learning them from the network's. Results go to benchmarks/results/refinement.json and .md; rows of other
labels and sets in it stay. A run that was stopped goes on where it was: items whose row there was made with these
weights and this code are left out.
"""
import argparse
import csv
import hashlib
import inspect
import json
import time
from pathlib import Path

import numpy as np
import torch

from instsep import together
from instsep.inference.verifier import MelodyMemory
from instsep.inference.windows import _crossfaded, _windows
from instsep.metrics import format_table
from instsep.mixtures import INSTRUMENTS, Gain, Mixtures, Room, soundfont_player
from instsep.separator import Separator
from instsep.sound.audio import load
from instsep.sound.notebank import NoteBank, _release_ramp, record_folder
from instsep.sound.soundfont import default_soundfont, find_soundfonts
from instsep.sound.spectral import istft, oracle
from instsep.together import Refiner
from common import HELD_OUT_WEIGHTS, RESULTS, write_json, write_text

NAMES = ("clarinet", "guitar", "piano")
RATE, SEEN, UNSEEN = 44100, "FluidR3_GM", "TimGM6mb"
HELD_OUT = {"iowa_mis/clarinet": "clarinet", "iowa_mis/guitar_nylon": "guitar",
            "discord_martin_hd28/guitar_steel": "guitar",
            # folders of recorded notes that no training heard
            "vcsl_upright/piano": "piano", "freepats_kw/piano": "piano"}
SETS = "recordings", "lively held-out notes", "held-out soundfont", "seen soundfont"  # in this order in the tables
TAUGHT, BOTH = "templates of the true stems", "both given"
ROWS = "separator", "refined", TAUGHT, "notes given", BOTH, "oracle"


def _walk(rng, count):
    "A number that drifts from note to note, standard deviation 1."
    value, out = rng.normal(), []
    for _ in range(count):
        value = value * np.exp(-1 / 4) + rng.normal() * np.sqrt(1 - np.exp(-2 / 4))
        out.append(value)
    return out


def _coloured(tone, tilt, bumps):
    "A tone through an equaliser: `tilt` in dB per octave about 500 Hz, bumps of (octave, dB)."
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(tone), 1 / RATE), 30) / 500)
    gain = (np.clip(tilt * octave, -15, 15) + sum(height * np.exp(-((octave - place) / 0.5) ** 2)
                                                  for place, height in bumps))
    return np.fft.irfft(np.fft.rfft(tone) * 10 ** (gain / 20), len(tone)).astype(np.float32)


def lively(bank):
    """A player of a note bank, as `mixtures.bank_player`, no two of whose notes of a pitch are alike: neighbouring
    recordings
    in turn, tuning, vibrato, bends of the guitar, tone colour that drifts and follows loudness, swells of the
    clarinet."""
    def play(notes, instrument, instance, seconds, rng):
        total, rows, table = int(seconds * RATE), bank._rows[(instrument.name, instance)], bank.table
        out, pitches, count = np.zeros(total + RATE, np.float32), bank.table["pitch"][rows], len(notes)
        life, drift, tuning = rng.uniform(0.3, 1.5), [_walk(rng, count) for _ in range(4)], rng.normal(0, 7)
        for place, j in enumerate(np.argsort(notes[:, 0])):
            onset, offset, pitch, velocity = notes[j]
            begin, end = round(onset * RATE), round(offset * RATE)
            if begin >= total or end <= 0: continue
            row = rows[np.argsort(np.abs(pitches - pitch) + rng.uniform(0, 2.5, len(rows)))[0]]
            # semitones
            held, off = max(end - begin, 64), (tuning + rng.normal(0, 4) * life) / 100
            ramp = _release_ramp(table["release"][row] * np.exp(rng.normal(0, 0.3)), RATE)
            time = np.arange(held + len(ramp)) / RATE
            bend, grows = np.full(len(time), off + pitch - table["pitch"][row]), np.clip(time / 0.3, 0, 1)
            if instrument.name == "clarinet":
                depth = abs(rng.normal(0, 10)) / 100 * life
                bend += depth * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * time + rng.uniform(0, 6)) * grows
                bend -= rng.exponential(0.2) * life * np.exp(-time / 0.04)
            if instrument.name == "guitar":
                if rng.random() < 0.25 * life:
                    height = rng.choice([-1, 1, 0.5]) * rng.uniform(0.2, 1)
                    bend += (height * np.clip((time - rng.uniform(0.05, 0.4)) / 0.1, 0, 1)
                             * (1 if rng.random() < 0.3 else 0.4))
                bend += abs(rng.normal(0, 6)) / 100 * life * np.sin(2 * np.pi * rng.uniform(4, 6) * time) * grows
            at = np.concatenate([[0], np.cumsum(2 ** (bend[:-1] / 12))])
            wave = bank.samples[table["start"][row]:table["start"][row] + table["length"][row]].astype(np.float32)
            at = at[:np.searchsorted(at, len(wave) - 2)]
            whole = at.astype(int)
            part = (at - whole).astype(np.float32)
            tone = wave[whole] * (1 - part) + wave[whole + 1] * part
            if not len(tone): continue
            if len(tone) > held: tone[held:] *= ramp[:len(tone) - held]
            loud = velocity * np.exp(0.1 * life * drift[3][place])
            tone = _coloured(tone, 1.2 * life * drift[0][place] + (loud - 75) / 30,
                             [(rng.uniform(-1, 3), 3 * life * drift[1][place]),
                              (rng.uniform(0, 4), 3 * life * drift[2][place])])
            tone *= table["scale"][row] * (loud / float(table["velocity"][row])) ** 2
            if instrument.polyphony == 1:
                swell = np.interp(np.linspace(0, 1, len(tone)), np.linspace(0, 1, 4), rng.normal(0, 2, 4) * life)
                tone *= 10 ** (swell / 20).astype(np.float32)
            tone, begin = tone[max(0, -begin):], max(0, begin)
            tone = tone[:len(out) - begin]
            out[begin:begin + len(tone)] += tone
        return out[:total]
    return play


def recordings(folder):
    "name, kind, {stem: (samples,)}, {name: notes (n, 4)} of each folder."
    for path in sorted(Path(folder).glob("R*/")):
        about = json.loads((path / "manifest.json").read_text())
        names = [stem["instrument"] for stem in about["stems"]]
        if len(names) < 2: continue
        stems = {stem["instrument"]: load(path / stem["stem"], mono=True)[0][0] for stem in about["stems"]}
        notes = {}
        for name in names:
            if not (path / f"{name}.csv").is_file(): continue
            with open(path / f"{name}.csv") as file:
                notes[name] = np.array([[float(row[k]) for k in ("onset_s", "offset_s", "midi", "velocity")]
                                        for row in csv.DictReader(file)])
        yield path.name, about["kind"], stems, notes


def rendered(data, count):
    "The same of a data set, of items in which two or more play."
    for i in range(count):
        score, stems = data.item(i)
        if (np.abs(stems).max(1) > 0).sum() < 2: continue
        yield (f"{i:03d}", score.kind, dict(zip(NAMES, stems)),
               {name: part for name, part in score.parts.items() if name in NAMES})


def sets(args):
    "Each set's name and a function that makes its items."
    from instsep.music.pieces import PieceBank
    if Path(args.recordings).is_dir(): yield "recordings", lambda: recordings(args.recordings)
    if not Path(args.pieces).is_file(): return
    pieces = PieceBank.load(args.pieces).split()
    pieces = pieces[next(name for name in pieces if name.startswith("val"))]
    fonts = {path.stem: path for path in [*find_soundfonts(), default_soundfont()]}
    for label, font, seed in (("seen soundfont", SEEN, 71), ("held-out soundfont", UNSEEN, 72)):
        programs = {name: [str(program) for program in INSTRUMENTS[name].programs] for name in NAMES}
        if font in fonts:
            yield label, lambda font=font, seed=seed: rendered(
                Mixtures(pieces, soundfont_player(fonts[font], RATE), programs, sample_rate=RATE, seconds=8.0,
                         absent=0.2,
                         augmentation=(Gain((-3, 3)),), seed=seed), args.count)
    if not Path(args.notes).is_dir(): return
    def bank():
        file = Path(args.cache) / "held_out.safetensors"
        if not file.is_file():
            banks = [record_folder(Path(args.notes) / folder, name, sample_rate=RATE, progress=False)
                     for folder, name in HELD_OUT.items()]
            NoteBank.from_notes([note for one in banks for note in one.notes()], RATE).save(file)
        return NoteBank.load(file)
    def played():
        notes = bank()
        return rendered(Mixtures(pieces, lively(notes), {name: notes.of(name) for name in NAMES}, sample_rate=RATE,
                                 seconds=16.0,
                                 absent=0.2, augmentation=(Gain((-4, 4)), Room(0.4)), seed=31), args.count)
    yield "lively held-out notes", played


class Recorder:
    "In a refiner's place: keeps what it would begin with, and changes nothing."
    def __init__(self, refiner=None):
        self.refiner, self.kept, self.melody, self.following_notes = refiner, [], MelodyMemory(), None
    @property
    def lacking(self): return getattr(self.refiner, "lacking", False)
    def conditioning(self, logits, first): return self.refiner.conditioning(logits, first) if self.refiner else logits
    def __call__(self, masks, magnitude, logits, first):
        self.kept.append((first, masks, logits))
        return masks


@torch.inference_mode()
def windows(separator, spec, refiner=None):
    "What a refiner begins with, in each window: number of its first frame, masks, logits of the notes."
    size, step, _ = _windows(separator.config, 20.0, 0.2)
    recorder = Recorder(refiner)
    places = range(0, max(1, spec.shape[-1] - size + step), step)
    for first in places:
        following = spec[..., first + step:first + step + size] if first + step in places else None
        separator.masks(spec[..., first:first + size], recorder, first, following)
    return recorder.kept


@torch.inference_mode()
def refined(separator, spec, seen, refiner=None):
    "Masks (stems, bins, frames) of all windows, faded into one another; refined where there is a refiner."
    size, step, ramp = _windows(separator.config, 20.0, 0.2)
    parts, tail = [], None
    for first, masks, logits in seen:
        if refiner: masks = refiner(masks.float(), spec[..., first:first + size].abs()[:, 0], logits.float(), first)
        masks = _crossfaded(tail, masks.float(), ramp)
        parts.append(masks[..., :step] if first + size < spec.shape[-1] else masks)
        tail = masks[..., step:]
    return torch.cat(parts, -1)[0]


@torch.inference_mode()
def taught(separator, spec, seen, stems, refiner):
    "A refiner that has been through the recording once with its true stems."
    known, silence = [name for name in separator.stems if name in NAMES], np.zeros_like(next(iter(stems.values())))
    parts = [stems.get(name, silence) for name in known]
    parts.append(sum((stem for name, stem in stems.items() if name not in known), silence))
    true = separator.spectrogram(torch.from_numpy(np.stack(parts))[None]).abs()[0]           # (stems, bins, frames)
    true = true / true.sum(0).clamp_min(1e-9)
    refined(separator, spec, [(first, true[None, ..., first:first + masks.shape[-1]], logits)
                              for first, masks, logits in seen], refiner)
    return refiner


def si_sdr(estimate, reference):
    scaled = (estimate @ reference) / (reference @ reference) * reference
    return 10 * float(np.log10((scaled @ scaled + 1e-12) / (np.square(estimate - scaled).sum() + 1e-12)))


def score(names, masks, spec, stems, mixture, config):
    "Improvement over the mixture of each stem that sounds, in dB."
    out = {}
    for name, stem in stems.items():
        if name not in names or not stem.any(): continue
        mask = masks[names.index(name)]
        sound = istft(mask[None] * spec[0] * (config.n_fft / 2), config.n_fft, config.hop, len(mixture))[0].numpy()
        out[name] = si_sdr(sound.astype(float), stem.astype(float)) - si_sdr(mixture.astype(float), stem.astype(float))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pieces", default="data/pieces.npz", help="a piece bank, made by instsep pieces")
    parser.add_argument("--notes", default="../shared/reference/notes", help="recorded notes, a folder for each bank")
    parser.add_argument("--recordings", default="../shared/reference/recordings")
    parser.add_argument("--count", type=int, default=16, help="items of each rendered set")
    parser.add_argument("--cache", default="data/refinement", help="folder of the separator's outputs")
    parser.add_argument("--model", default=HELD_OUT_WEIGHTS / "trio-informed", help="name or folder")
    parser.add_argument("--only", default=None, help="sets, separated by commas")
    parser.add_argument("--given", action="store_true", help="also with the true notes given")
    parser.add_argument("--taught", action="store_true", help="also with the templates of the true stems")
    parser.add_argument("--label", default="refined", help="of the row")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of Refiner")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for change in args.set:
        name, value = change.split("=")
        setattr(Refiner, name, type(getattr(Refiner, name))(float(value)))
    separator = Separator.from_pretrained(args.model)
    learner, weights, code = separator.refining(), weights_id(separator), code_id(args)
    cache = Path(args.cache) / weights
    cache.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "refinement.json"
    for label, items in sets(args):
        if args.only and label not in args.only.split(","): continue
        for name, kind, stems, notes in items():
            about = json.loads(file.read_text()) if file.is_file() else dict(rows=[])  # what was tried stays, too
            whole = len(notes) == len([k for k, v in stems.items() if v.any()])        # are all notes known?
            wanted = {args.label} | ({TAUGHT} if args.taught else set())
            if args.given and whole: wanted |= {"notes given"} | ({BOTH} if args.taught else set())
            made = {r["row"] for r in about["rows"] if (r["set"], r["item"], r.get("made")) == (label, name,
                                                                                               f"{weights} {code}")}
            if wanted <= made: continue
            mixture = sum(stems.values())
            spec = separator.spectrogram(torch.from_numpy(mixture)[None, None])
            seconds, kept = len(mixture) / RATE, cache / f"{label}_{name}.pt".replace(" ", "-")
            row = lambda what, found, cost: [dict(set=label, item=name, kind=kind, stem=stem, row=what,
                                                  gain=round(gain, 3), cost=round(cost, 4), made=f"{weights} {code}")
                                             for stem, gain in found.items()]
            begun = time.process_time()
            seen, before, *fixed = torch.load(kept, weights_only=True) if kept.is_file() else (None, 0)
            if seen is None:
                seen = [(first, masks.half(), logits.half()) for first, masks, logits in windows(separator, spec)]
                before = (time.process_time() - begun) / seconds
            if not fixed:
                inside = np.stack([stems.get(k, np.zeros_like(mixture)) for k in NAMES]
                                  + [sum((v for k, v in stems.items() if k not in NAMES), np.zeros_like(mixture))])
                best = oracle(mixture, inside, n_fft=4096, hop=1024).numpy()
                fixed = [dict(score(separator.stems, refined(separator, spec, seen), spec, stems, mixture,
                                    separator.config)),
                         {k: si_sdr(best[i].astype(float), stems[k].astype(float))
                          - si_sdr(mixture.astype(float), stems[k].astype(float))
                          for i, k in enumerate(NAMES) if k in stems and stems[k].any()}]
                torch.save((seen, before, *fixed), kept)
            rows = row("separator", fixed[0], before) + row("oracle", fixed[1], 0.0)
            begun = time.process_time()
            masks = refined(learner, spec, seen, learner.refiner())
            cost = (time.process_time() - begun) / seconds
            rows += row(args.label, score(learner.stems, masks, spec, stems, mixture, separator.config), cost)
            if args.taught:
                refiner = taught(learner, spec, seen, stems, learner.refiner())
                rows += row(TAUGHT, score(learner.stems, refined(learner, spec, seen, refiner), spec, stems, mixture,
                                          separator.config), cost)
            if args.given and whole:
                given = separator._with(separator.config)
                given.refine, given.score = True, {k: notes[k] for k in (*NAMES, *(k for k in notes if k not in NAMES))
                                                   if k in notes}
                given.active, given.out_of_set = ([i for i, k in enumerate(NAMES) if k in notes],
                                                  any(k not in NAMES for k in notes))
                begun, refiner = time.process_time(), given.refiner()
                seen = windows(given, spec, refiner)
                masks = refined(given, spec, seen, refiner)
                cost = (time.process_time() - begun) / seconds
                rows += row("notes given", score(given.stems, masks, spec, stems, mixture, separator.config), cost)
                if args.taught:
                    refiner = taught(given, spec, seen, stems, given.refiner())
                    rows += row(BOTH, score(given.stems, refined(given, spec, seen, refiner), spec, stems, mixture,
                                            separator.config), cost)
            new = {(r["set"], r["item"], r["stem"], r["row"]) for r in rows}
            about["rows"] = [r for r in about["rows"] if (r["set"], r["item"], r["stem"], r["row"]) not in new] + rows
            print(label, name, kind, {r["row"] + " " + r["stem"]: round(r["gain"], 1) for r in rows}, flush=True)
            write(about)


def weights_id(separator):
    digest = hashlib.blake2b(digest_size=4)
    for name, value in sorted(separator.state_dict().items()): digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def code_id(args):
    "Of the code that refines, and of the constants that were set."
    code = "".join(inspect.getsource(part) for part in (together, Recorder, windows, refined))
    return hashlib.blake2b((code + str(sorted(args.set))).encode(), digest_size=4).hexdigest()


def missing(rows):
    "How much of the way from the refined stems to the oracle true notes and true templates bring, and what is left."
    table = []
    for label in dict.fromkeys(map(group, rows)):
        gains = {what: {(r["item"], r["stem"]): r["gain"] for r in rows if group(r) == label and r["row"] == what}
                 for what in ROWS[1:]}
        same = sorted(set.intersection(*map(set, gains.values())))             # the notes of all are known
        if not same: continue
        refined, templates, notes, both, best = (np.mean([found[key] for key in same]) for found in gains.values())
        table.append({"set": label, "n": len(same), "refined": refined, "to the oracle": best - refined,
                      "true notes": notes - refined, "true templates": templates - refined,
                      "both": both - refined, "what is left": best - both})
    return table


def group(row):
    if row["set"] != "recordings": return row["set"]
    return "R01 to R04" if row["item"][:3] in ("R01", "R02", "R03", "R04") else row["item"][:3]


def write(about):
    "The JSON, and the tables made of it."
    rows, table, kinds = about["rows"], [], []
    before = {(r["set"], r["item"], r["stem"]): r["gain"] for r in rows if r["row"] == "separator"}
    def line(chosen):
        gains = [r["gain"] for r in chosen]
        lost = [r["gain"] - before.get((r["set"], r["item"], r["stem"]), r["gain"]) for r in chosen]
        return {"n": len(gains), "mean": float(np.mean(gains)), "median": float(np.median(gains)),
                "lost more than 0.3": sum(x < -0.3 for x in lost),
                "worst": float(min(lost)), "CPU s per s": f"{np.mean([r['cost'] for r in chosen]):.3f}"}
    rows.sort(key=lambda r: (SETS.index(r["set"]), r["item"], (ROWS + (r["row"],)).index(r["row"])))
    for label in dict.fromkeys(map(group, rows)):
        for what in dict.fromkeys((*ROWS, *(r["row"] for r in rows))):
            chosen = [r for r in rows if group(r) == label and r["row"] == what]
            if chosen: table.append({"set": label, "row": what, **line(chosen)})
    for kind in dict.fromkeys(r["kind"] for r in rows if r["set"] != "recordings"):
        for what in dict.fromkeys((*ROWS, *(r["row"] for r in rows))):
            chosen = [r for r in rows if r["kind"] == kind and r["row"] == what and r["set"] != "recordings"]
            if chosen: kinds.append({"kind": kind, "row": what, **line(chosen)})
    text = ("# Refinement\n\n`python benchmarks/refinement.py --given --taught`\n\n"
            "SI-SDR improvement over the mixture in dB, "
            "over all stems that sound. Lost: stems that are more than 0.3 dB worse than the separator's; worst: the "
            "largest loss. Cost: CPU seconds per second of mono sound on one thread, of the separator and of the "
            "refinement each for itself (given the notes: of both); a busy processor makes it up to half as much "
            "again.\n\n" + format_table(table)
            + ("\n\nRendered mixtures by kind:\n\n" + format_table(kinds) if kinds else "") + "\n")
    lost = missing(rows)
    if lost:
        text += ("\nWhere it stops: dB from the refined stems to the oracle, and what is gained by the true notes, by "
                 "templates that begin as those of the true stems of the same recording, and by both. What is left "
                 "then, better notes and templates do not bring; about as much is left where the templates are trusted "
                 "alone (the last row of the last table).\n\n"
                 + format_table(lost) + "\n")
    if about.get("tried"):
        text += "\n" + about["tried"]["about"] + "\n\n" + format_table(about["tried"]["rows"]) + "\n"
    write_json(RESULTS / "refinement.json", dict(about, table=table, kinds=kinds, missing=lost))
    write_text(RESULTS / "refinement.md", text)


if __name__ == "__main__": main()
