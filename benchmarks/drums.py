"""A drum kit beside clarinet, guitar and piano: where it goes, a separator that has learnt to leave it in the residual,
and a rule that does not attenuate the residual where it is percussive.

    python benchmarks/drums.py loops --output data/drums.npz
    python benchmarks/drums.py train --before data/before --loops data/drums.npz --bank data/bank.safetensors \\
        --pieces data/pieces.npz -o runs/drums
    python benchmarks/drums.py score --before data/before --after runs/drums --loops data/drums.npz \\
        --pieces data/pieces.npz

`loops` plays made-up rhythms on the drum kits of the soundfonts that training uses, and of one that it does not.
`train` goes on from a separator, its own teacher: beside drums the student is to give what the teacher gives without
them, and without drums what the teacher gives, too; `--truth` says how much of the targets are the stems themselves. It
goes on where it was stopped; `--share` of the way from the old weights to the new ones is kept. `score` separates and
transcribes validation pieces, played exactly on a soundfont that no training used, without drums and with its kits at
several levels, by both separators (`--before`, `--after`: `trio-informed` unless a folder is named), with the rule and
without; and, without drums, validation pieces on recorded notes that are held out (`--notes`), half of them beside an
out-of-set instrument, and `--recordings`. Results go to benchmarks/results/drums.json and .md.
"""
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from instsep.core import TRIO, atomic_path
from instsep.frames import FrameModel, FrameTranscriber
from instsep.metrics import format_table, note_scores, si_sdr_improvement
from instsep.mixtures import Mixtures, balanced
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.separator import Separator, local_rms
from instsep.sound.notebank import NoteBank
from instsep.sound.soundfont import Synthesizer
from instsep.training.frames import JointModule, corrupt_notes, interpolate_weights
from instsep.training.performance import (
    ROUGH_AUGMENTATION, expressive_player, humanize_ornamented, humanize_phrases, rubato)
from instsep.training.separator import Interrupt, TrainConfig, fit, spectral_loss
from common import (HELD_OUT_SOUNDFONT, RESULTS, exact_mixtures, processor, recorded_bank, recordings,
                    register_others, soundfonts, training_arguments, weights_of_groups, write_results)
from dirt import played, rms
from gpu_run import OTHER_WEIGHTS
from out_of_set import BANKS, HELD_OUT_AUGMENTATION

RATE, LENGTH = 22050, 12.0                                   # of the loops: Hz, s
KITS = 0, 8, 16, 24, 25, 32, 40                              # General MIDI 2: standard, room, power, ..., jazz, brush
LEVELS = None, -18.0, -12.0, -6.0, 0.0                       # dB of the drums above the rest, in `score`
WAYS = "before", "before, rule", "after", "after, rule"      # training; without the rule, and with it
# General MIDI keys
KICKS, SNARES, HATS = (35, 36), (37, 38, 39, 40), (42, 44, 46)
CYMBALS, TOMS = (49, 51, 53, 57, 59), (41, 43, 45, 47, 48)
PERCUSSION = 54, 56, 60, 61, 62, 63, 64, 69, 70, 75, 76


# ---- loops

def rhythm(rng) -> list[Note]:
    "A bar that is repeated, with small changes, at 60 to 180 beats a minute: 8, 12 or 16 steps, straight or swung."
    steps, bpm, swing = int(rng.choice([8, 12, 16])), rng.uniform(60, 180), rng.choice([0, 0, rng.uniform(0.1, 0.33)])
    length, loose, chosen = 4 * 60 / bpm / steps, rng.uniform(0, 0.012), {}
    def add(keys, density, level):
        key = int(rng.choice(keys))
        chosen[key] = (rng.random(steps) < density, level * rng.uniform(0.7, 1.0))
    if rng.random() < 0.85: add(KICKS, rng.uniform(0.1, 0.35), 110); chosen[next(iter(chosen))][0][0] = True
    if rng.random() < 0.8:
        add(SNARES, rng.uniform(0, 0.15), 105)
        key = list(chosen)[-1]
        chosen[key][0][steps // 4::steps // 2] = True
    if rng.random() < 0.8: add(HATS, rng.uniform(0.4, 1.0), 80)
    if rng.random() < 0.4: add(CYMBALS, rng.uniform(0.02, 0.5), 80)
    if rng.random() < 0.3: add(TOMS, rng.uniform(0.05, 0.3), 95)
    if rng.random() < 0.35 or not chosen: add(PERCUSSION, rng.uniform(0.1, 0.7), 90)
    notes, start, kit = [], rng.uniform(0, length), int(rng.choice(KITS))
    for step in range(int((LENGTH - start) / length)):
        time = start + (step + (swing if step % 2 else 0)) * length
        for key, (pattern, level) in chosen.items():
            if pattern[step % steps] == (rng.random() > 0.06):
                velocity = int(np.clip(level * (1.0 if step % 4 == 0 else 0.85) + rng.normal(0, 6), 10, 127))
                onset = max(0.0, time + rng.normal(0, loose))
                notes.append(Note(onset, onset + 0.1, key, velocity, kit, True))
    return notes


def make_loops(output: Path, count: int) -> None:
    made = {}
    for name, path in soundfonts().items():
        part = "test" if name == HELD_OUT_SOUNDFONT else "train"
        with Synthesizer(path, sample_rate=RATE) as synthesizer:
            for k in range(count if part == "train" else 48):
                rng = np.random.default_rng([7, k, *name.encode()])
                sound = synthesizer.render(rhythm(rng), tail=0.0).mean(0)
                sound = np.pad(sound, (0, max(0, int(LENGTH * RATE) - len(sound))))[:int(LENGTH * RATE)]
                made.setdefault(part, []).append(np.rint(sound / np.abs(sound).max() * 32000).astype(np.int16))
        print(name, len(made[part]), flush=True)
    with atomic_path(output) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{part: np.stack(loops) for part, loops in made.items()})


# ---- training

def at_another_pitch(tempo, cents: float, parts, seconds: float, rng, p: float = 0.5) -> list[np.ndarray]:
    "Parts as `tempo` plays them, and in some mixtures all tuned higher or lower, by up to so many cents."
    moved = rng.uniform(-cents, cents) / 100 if rng.random() < p else 0.0
    return [np.column_stack([part[:, :2], part[:, 2] + moved, part[:, 3:]]) for part in tempo(parts, seconds, rng)]


def as_played(bank: NoteBank, pieces, *, concert_pitch: float = 0.0, **options) -> Mixtures:
    "Mixtures of 6 s to train on, as in the last run on a GPU; `concert_pitch`: half of them up to so many cents off."
    tempo = partial(at_another_pitch, rubato, concert_pitch) if concert_pitch else rubato
    return Mixtures(pieces, expressive_player(bank), balanced(bank, weights_of_groups(bank)), instruments=TRIO,
                    sample_rate=RATE, seconds=6.0, performance=humanize_ornamented, tempo=tempo, most_others=2,
                    other_weights=OTHER_WEIGHTS, augmentation=ROUGH_AUGMENTATION, **options)


def held_out(bank: NoteBank, pieces, **options) -> Mixtures:
    "Mixtures of 8 s to score, as people play."
    return Mixtures(pieces, expressive_player(bank, tuning=5.0), {name: bank.of(name) for name in bank.instruments},
                    sample_rate=RATE, seconds=8.0, absent=0.2, performance=humanize_phrases,
                    augmentation=HELD_OUT_AUGMENTATION, **options)


def with_drums(music, loops, rng, p: float, level_db: tuple[float, float]):  # (batch, samples) -> the same shape
    "Drums for each item, or silence: how often they play, and how much louder than the music."
    found = np.zeros(tuple(music.shape), np.float32)
    for item, drums in zip(music, found):
        if rng.random() >= p: continue
        loop = loops[rng.integers(len(loops))]
        begin = rng.integers(max(1, len(loop) - len(drums)))
        sound = loop[begin:begin + len(drums)] / 32768
        if not sound.any(): continue
        level = 10 ** (rng.uniform(*level_db) / 20)
        drums[:len(sound)] = sound * rms(item.numpy()) / rms(sound) * level
    return torch.from_numpy(found)


class DistilledModule(JointModule):
    """Learns to do beside drums what the separator that it starts from does without them: the instruments' targets are
    the teacher's estimates, the residual's are the teacher's and the drums. Where there are none, the student is asked
    for what the teacher gives, wrong notes in the conditioning included. With a share of `truth` the targets lie
    between that and the stems themselves. Only what makes the masks learns; the transcriber inside stays as it is,
    or is another one from the beginning (`transcriber`). Then the student hears that one's notes, wrong ones among
    them, and the teacher its own."""
    def learn_from(self, teacher, loops, p: float = 0.5, level_db: tuple[float, float] = (-18.0, 4.0),
                   truth: float = 0.0, transcriber=None):
        for separator in (self.model, self.ema):
            separator.load_state_dict(teacher.state_dict())
            if transcriber is not None: separator.network.notes.load_state_dict(transcriber.network.state_dict())
        self.model.network.notes.requires_grad_(False)
        # in a list it is no submodule: neither trained nor stored
        self.teacher, self.loops, self.p, self.level_db = [teacher.eval()], loops, p, level_db
        self.truth, self.hears_its_own = truth, transcriber is not None

    def loss(self, model, batch):
        stems, teacher, student = batch["stems"], self.teacher[0], model.network
        learns = model is self.model
        rng = np.random.default_rng([self.train_config.seed, self.global_step] if learns else [0, len(stems)])
        drums = with_drums(stems.sum(1), self.loops, rng, self.p, self.level_db)
        with torch.no_grad():
            plain, added = model.spectrogram(stems.sum(1)), model.spectrogram(drums)     # (batch, bins, frames)
            # (batch, heads, instruments, pitches, frames)
            conditioning, heard = teacher.network.note_logits(plain), student.note_logits(plain + added)
            if self.hears_its_own:
                if learns: heard = corrupt_notes(heard, self.wrong)
            else:
                if learns: conditioning = corrupt_notes(conditioning, self.wrong)
                silent = ~drums.any(-1)
                heard[silent] = conditioning[silent]
            target = teacher.network(plain.abs() / local_rms(plain.abs()), conditioning) * plain.unsqueeze(1)
            if self.truth: target = torch.lerp(target, model.spectrogram(stems), self.truth)
            target[:, -1] += added
        magnitude = (plain + added).abs()
        estimate = student(magnitude / local_rms(magnitude), heard) * (plain + added).unsqueeze(1)
        return spectral_loss(estimate, target, l1=self.train_config.l1, floor_db=self.train_config.floor_db)

    def validation_step(self, batch, index, dataloader_idx=0):
        self.log("valid_loss", self.loss(self.ema, batch), batch_size=len(batch["stems"]))


def training_data(args):  # note bank, pieces by split, loops of drums
    torch.set_num_threads(1)
    register_others()
    with np.load(args.loops) as held: loops = held["train"]
    return NoteBank.load(args.bank), PieceBank.load(args.pieces).split(), loops


def train(args) -> None:
    bank, pieces, loops = training_data(args)
    def make(part, seed, **options):
        return as_played(bank, pieces[part], seed=seed, absent=0.2, other=0.3, concert_pitch=args.concert_pitch,
                         **options)
    plan = TrainConfig(steps=10**7, batch=4, learning_rate=args.rate, warmup=20, ema=0.995, floor_db=-20.0,
                       validate_every=100, save_every=20, seed=args.seed, workers=0, bf16=True, minutes=args.minutes)
    teacher = Separator.from_pretrained(args.before).at(RATE)
    module = DistilledModule(teacher.config, plan)
    transcriber = FrameModel.from_pretrained(args.transcriber) if args.transcriber else None
    module.learn_from(teacher, loops, truth=args.truth, transcriber=transcriber)
    fit(module, make("train", 6000 + args.seed), Path(args.output) / "run", valid=[make("valid", 2, length=32)],
        accelerator="cpu", callbacks=[Interrupt()])
    if transcriber is not None: teacher.network.notes.load_state_dict(transcriber.network.state_dict())
    kept = interpolate_weights(teacher, module.ema, args.share).at(44100)
    kept.save_pretrained(args.output, card=dict(steps=module.global_step))


# ---- scores

def without_drums(args):  # set, item, {stem: (samples,)}, sample rate
    if args.notes:
        bank = recorded_bank(args.notes, BANKS, sample_rate=RATE)
        data = held_out(bank, PieceBank.load(args.pieces).split()["valid"], other=0.5, seed=911)
        for number in range(args.count):
            stems = dict(zip(data.stems, map(torch.from_numpy, data.item(number)[1].astype(np.float32))))
            beside = "with" if data.score(number).out_of_set else "without"
            yield f"held-out notes, {beside} an out-of-set instrument", number, stems, RATE
    if args.recordings:
        for path, _, stems in recordings(args.recordings):
            stems = {name: torch.as_tensor(stem[0]) for name, stem in stems.items()}
            named, other = {name: stems[name] for name in stems if name in TRIO}, set(stems) - set(TRIO)
            if len(stems) > 1:
                yield "recordings", path.name.split("_")[0], named | (
                    {"other": sum(stems[name] for name in other)} if other else {}), 44100


def separate(wave, rate, separator, rule):  # (samples,) -> {stem: (1, samples)}
    "Without refinement; `rule`: what is percussive stays in the residual."
    with nullcontext() if rule else patch("instsep.separator.percussive_share", torch.zeros_like):
        return separator.separate(wave[None], rate, refine=False)


def gains(args, ways) -> list[dict]:
    "SI-SDR improvement of each stem, and of the residual where there is an out-of-set instrument."
    rows = []
    for label, item, stems, rate in without_drums(args):
        mixture = sum(stems.values())
        for way, (separator, rule) in ways.items():
            found = separate(mixture, rate, separator, rule)
            rows += [dict(set=label, item=item, way=way, stem=stem, gain=float(si_sdr_improvement(
                found["residual" if stem == "other" else stem][0], true, mixture))) for stem, true in stems.items()
                     if true.square().mean() > 1e-4 * mixture.square().mean()]
    return rows


def table_of_gains(rows: list[dict]) -> list[dict]:
    table = []
    for label, kind in dict.fromkeys((row["set"], row["stem"] == "other") for row in rows):
        some = [row for row in rows if (row["set"], row["stem"] == "other") == (label, kind)]
        values = {way: [row["gain"] for row in some if row["way"] == way] for way in WAYS}
        table.append({"set": label, "what": "residual" if kind else "stems", "n": len(next(iter(values.values())))} | {
            way: f"{np.mean(each):.1f} / {np.median(each):.1f}" for way, each in values.items()})
    return table


def score(args) -> None:
    torch.set_num_threads(1)
    with np.load(args.loops) as held: loops = held["test"]
    data = exact_mixtures(soundfonts()[HELD_OUT_SOUNDFONT], PieceBank.load(args.pieces).split()["valid"], seed=910)
    transcribers = {"before: ": FrameTranscriber.from_pretrained(args.transcriber_before),
                    "after: ": FrameTranscriber.from_pretrained()}
    before, after = Separator.from_pretrained(args.before), Separator.from_pretrained(args.after)
    ways = dict(zip(WAYS, [(before, False), (before, True), (after, False), (after, True)]))
    rows = []
    for number in range(args.count):
        performed, stems = data.item(number)
        mixture, rate = stems[:3].sum(0), data.sample_rate
        loop = np.interp(np.arange(mixture.shape[0]) / rate, np.arange(loops.shape[1]) / RATE, loops[number] / 32768)
        sounding = {name: torch.from_numpy(stem) for name, stem in zip(TRIO, stems) if stem.any()}
        for level in LEVELS:
            drums = np.zeros_like(mixture) if level is None else loop * rms(mixture) / rms(loop) * 10 ** (level / 20)
            wave, drums = (torch.from_numpy(sound.astype(np.float32)) for sound in (mixture + drums, drums))
            row = dict(item=number, level=level)
            for when, transcriber in transcribers.items():
                notes = note_scores(played(performed.parts), transcriber(wave[None], rate, progress=False))
                row |= {when + key: float(notes[key]) for key in ("onset_f1", "multi_instrument_onset_f1")}
            for way, (separator, rule) in ways.items():
                found = separate(wave, rate, separator, rule)
                if len(sounding) > 1: row[f"{way}: stems"] = float(np.mean([
                    si_sdr_improvement(found[name][0], true, wave) for name, true in sounding.items()]))
                if level is not None: row[f"{way}: residual"] = float(
                    si_sdr_improvement(found["residual"][0], drums, wave))
            rows.append(row)
        print(number, flush=True)
    def cell(level, key):
        values = [row[key] for row in rows if row["level"] == level and key in row]
        return f"{np.mean(values):.1f} / {np.median(values):.1f}" if values else ""
    def share(level, key): return f"{np.mean([row[key] for row in rows if row['level'] == level]):.2f}"
    levels = {level: "none" if level is None else f"{level:+.0f} dB" for level in LEVELS}
    tables = {what: [{"drums": name} | {way: cell(level, f"{way}: {what}") for way in WAYS}
                     for level, name in levels.items() if what == "stems" or level is not None]
              for what in ("stems", "residual")}
    tables["notes"] = [{"drums": name} | {f"{what}, {when}": share(level, f"{when}: {key}")
                       for what, key in (("onset F1", "onset_f1"), ("by instrument", "multi_instrument_onset_f1"))
                       for when in ("before", "after")} for level, name in levels.items()]
    beside = gains(args, ways)
    tables["without_drums"] = table_of_gains(beside)
    result = dict(command="python benchmarks/drums.py score --before BEFORE --transcriber-before BEFORE "
                          "--notes NOTES --recordings RECORDINGS",
                  tables=tables, items=rows, without_drums=beside,
                  machine=f"{processor()}, torch {torch.__version__}, one thread")
    write_results(RESULTS / "drums", f"""# A drum kit beside clarinet, guitar and piano

`{result["command"]}`

{args.count} mixtures of validation pieces, 8 s each, played exactly on a soundfont that no training used, and a rhythm
on one of its drum kits so many dB above them. SI-SDR improvement over the mixture in dB, mean / median, without
refinement: the weights before and after training with drums, without and with the rule for what is percussive.

Stems: the clarinet, guitar and piano that play, where at least two do
(n = {sum("before: stems" in row for row in rows) // len(LEVELS)} mixtures).

{format_table(tables["stems"])}

The residual, held against the drums (n = {args.count}):

{format_table(tables["residual"])}

Notes that the transcriber finds, before and after a training of its own (`benchmarks/distil_notes.py`), which the
separators above do without:

{format_table(tables["notes"])}

Without drums. The residual counts where an out-of-set instrument plays.

{format_table(tables["without_drums"])}
""", result)


def main():
    parser = training_arguments(__doc__, minutes=50.0, output="data/drums.npz")
    parser.add_argument("what", choices=["loops", "train", "score"])
    parser.add_argument("--loops", default="data/drums.npz", help="what `loops` wrote")
    parser.add_argument("--rate", type=float, default=3e-4, help="the learning rate")
    parser.add_argument("--share", type=float, default=0.75, help="how much of the way to the trained weights is kept")
    parser.add_argument("--transcriber", help="a transcriber for the inside of the separator that learns; without, "
                                              "the one before")
    parser.add_argument("--truth", type=float, default=0.0, help="how much of the targets are the stems themselves")
    parser.add_argument("--concert-pitch", type=float, default=0.0,
                        help="of `train`: half of the mixtures are tuned higher or lower by up to so many cents")
    parser.add_argument("--count", type=int, default=16, help="mixtures to score")
    parser.add_argument("--before", default="trio-informed", help="a separator: the teacher, or what is scored")
    parser.add_argument("--after", default="trio-informed", help="a separator to score")
    parser.add_argument("--transcriber-before", default="trio-notes", help="a transcriber to score beside the default")
    parser.add_argument("--notes", help="folder with recorded notes of the held-out banks")
    parser.add_argument("--recordings", help="folder with recordings")
    args = parser.parse_args()
    if args.what == "loops": return make_loops(Path(args.output), 160)
    (train if args.what == "train" else score)(args)


if __name__ == "__main__": main()
