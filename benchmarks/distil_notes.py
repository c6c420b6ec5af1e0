"""The transcriber `trio-notes`, trained on as its own teacher: who plays is the truth's, and drums belong to nobody.

    python benchmarks/distil_notes.py train --bank data/bank.safetensors --pieces data/pieces.npz \\
        --loops data/drums.npz -o runs/notes
    python benchmarks/distil_notes.py score "before" runs/before "trained on" runs/notes --pieces data/pieces.npz \\
        --notes ../shared/reference/notes --recordings ../shared/reference/recordings

The teacher gets each mixture without drums; what it detects at a pitch is given to those that play it there, or may
play in this mixture, out-of-set instruments among them. Half of the target is this, half the written notes. The student
gets a drum kit beside in some of the mixtures (`drums.py loops`), and with `--dirt` some of them as recordings have
them: coded as MP3, with a speed that drifts or a constant added; with `--concert-pitch` half of the pieces are tuned up
to so many cents off. It goes on where it was stopped; `--share` of the
way from the old weights to the new ones is kept. Only the network learns: what corrects offsets, velocities and the
pedal is the teacher's.

`both` trains a separator that is conditioned on notes, and the transcriber inside it, jointly: each its own teacher,
half of the targets the truth, beside drums as without them.

`mean` gives the mean of two weights: of a run without the held-out banks and one with all, and then of two points of
the run that ships, which went on from there.
`clarinets` compares weights, each a name and a folder, on pieces through the held-out soundfont only: all notes, and
how many of a clarinet's are found as its own, all asked first by the verifier that ships. Its table goes into
nbs/results/distil_notes_run.json.

`score` compares weights, each a name and a folder, all with the corrections that ship. Validation pieces: played
exactly on a soundfont that no training used, and as people play on recorded notes that are held out, without and with
out-of-set instruments; recordings; and others that become a clarinet, and clarinets that stay one, of mixtures as in
`out_of_set.py`. Results go to benchmarks/results/distil_notes.json and .md.
"""
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import dynamics
import out_of_set
from instsep.frames import FrameModel, FrameTranscriber, restrict_to_instruments
from instsep.metrics import format_table, match_notes, note_scores
from instsep.mixtures import INSTRUMENTS, soundfont_player
from instsep.music.pieces import PieceBank
from instsep.separator import Separator, local_rms
from instsep.training.frames import (
    FramesModule, JointModule, NoteMixtures, corrupt_notes, interpolate_weights, notes_loss)
from instsep.training.performance import expressive_player
from instsep.training.separator import Interrupt, TrainConfig, fit, spectral_loss
from common import (HELD_OUT_SOUNDFONT, LOGS, RESULTS, processor, read_json, recorded_bank, register_others,
                    soundfonts, training_arguments, write_json, write_results)
from dirt import drift, mp3, rms
from drums import RATE, DistilledModule, as_played, held_out, training_data, with_drums
from transcription import recorded_items, reference, soundfont_items

DRUMS, LEVELS_DB = 0.35, (-18.0, 4.0)               # share of the mixtures, and how much louder than the music
CLARINET = 71                                       # General MIDI
AROUND = 3                                          # frames before and after a note in which it may still be heard


MP3_LEVELS, DRIFT_CENTS = (0.0, 0.6), (2.0, 20.0)   # libsndfile's compression: 162 to 65 kb/s at 22.05 kHz; how far


def as_recorded(music: torch.Tensor, rng: np.random.Generator, p: float) -> torch.Tensor:  # (batch, samples), both
    "Some of the mixtures with a speed that drifts, some with a constant, some coded as MP3 and decoded again."
    found = music.clone()
    for item in found:
        wave = item.numpy()                                         # the same memory
        if not wave.any(): continue
        if rng.random() < p / 2: wave[:] = drift(rng.uniform(*DRIFT_CENTS), RATE)(wave, rng)
        if rng.random() < p / 4: wave += rng.normal() * 0.3 * rms(wave)
        if rng.random() < p: wave[:] = mp3(float(rng.uniform(*MP3_LEVELS)), RATE)(wave, rng)
    return found


def given_to_those_who_play(
    logits: torch.Tensor,   # (batch, heads, instruments and other, pitches, frames), the teacher's
    targets: torch.Tensor,  # the same shape: the written notes
) -> torch.Tensor:          # the same shape: posteriors
    """The teacher's posteriors of onset and frame, its velocities: what it detects at a pitch is shared by those that
    play it there, and where nobody does, by all that play in the mixture."""
    plays = targets[:, 1].amax((2, 3)) > 0                                      # (batch, instruments and other)
    found = [restrict_to_instruments(logits[k:k + 1], plays[k, :-1].nonzero().flatten().tolist(), bool(plays[k, -1]))
             if plays[k].any() else logits[k:k + 1].float() for k in range(len(logits))]
    posteriors = torch.cat(found).sigmoid()
    held = targets[:, 1].flatten(1, 2)                                          # (batch, rows, frames)
    near = torch.nn.functional.max_pool1d(held, 2 * AROUND + 1, 1, AROUND).unflatten(1, targets.shape[2:4])
    share = near.unsqueeze(1) * (posteriors[:, :2] + 1e-3)
    total = share.sum(2, keepdim=True)
    # together they may be surer than one can be
    moved = (posteriors[:, :2].sum(2, keepdim=True) * share / total.clamp_min(1e-9)).clamp_max(1 - 1e-4)
    return torch.cat([torch.where(total > 0, moved, posteriors[:, :2]), posteriors[:, 2:]], 1)


class DistilledNotes(FramesModule):
    "Learns from its own posteriors, put right by the written notes, and from these; beside drums as without them."
    def learn_from(self, teacher: FrameModel, loops, dirt: float = 0.0):
        self.dirt = dirt
        for model in (self.model, self.ema): model.load_state_dict(teacher.state_dict())
        self.teacher, self.loops = [teacher.eval()], loops          # in a list it is no submodule: not trained nor kept

    def loss(self, model: FrameModel, batch: dict) -> torch.Tensor:
        learns = model is self.model
        count = len(batch["mixture"])
        rng = np.random.default_rng([self.train_config.seed, self.global_step] if learns else [0, count])
        with torch.no_grad():
            own = given_to_those_who_play(self.teacher[0](batch["mixture"]), batch["targets"])
        drums = with_drums(batch["mixture"], self.loops, rng, DRUMS, LEVELS_DB)
        return notes_loss(model(as_recorded(batch["mixture"] + drums, rng, self.dirt)), (own + batch["targets"]) / 2)


def train(args) -> None:
    bank, pieces, loops = training_data(args)
    def make(part, seed, **options):
        return NoteMixtures(as_played(bank, pieces[part], seed=seed, absent=args.absent, other=0.5,
                                      concert_pitch=args.concert_pitch, **options))
    plan = TrainConfig(steps=10**7, batch=4, learning_rate=args.rate, warmup=20, ema=0.99, validate_every=100,
                       save_every=20, seed=args.seed, workers=0, bf16=True, minutes=args.minutes)
    teacher = FrameModel.from_pretrained(args.before)
    module = DistilledNotes(teacher.config, plan)
    module.learn_from(teacher, loops, args.dirt)
    fit(module, make("train", 7000 + args.seed), Path(args.output) / "run", valid=[make("valid", 2, length=24)],
        accelerator="cpu", callbacks=[Interrupt()])
    interpolate_weights(teacher, module.ema, args.share).save_pretrained(
        args.output, card=dict(steps=module.global_step))


class JointlyDistilled(DistilledModule):
    "The separator, its own teacher, and the transcriber inside it, its own teacher: both learn."
    def learn_from(self, teacher, loops, **options):
        super().learn_from(teacher, loops, **options)
        self.model.network.notes.requires_grad_(True)
        self.model.network.notes.verifier.requires_grad_(False)

    def losses(self, model, batch):
        stems, teacher, student = batch["stems"], self.teacher[0].network, model.network
        learns = model is self.model
        rng = np.random.default_rng([self.train_config.seed, self.global_step] if learns else [0, len(stems)])
        drums = with_drums(stems.sum(1), self.loops, rng, self.p, self.level_db)
        with torch.no_grad():
            plain, added = model.spectrogram(stems.sum(1)), model.spectrogram(drums)     # (batch, bins, frames)
            detected = teacher.note_logits(plain)               # (batch, heads, instruments and other, pitches, frames)
            own = given_to_those_who_play(detected, batch["targets"])
            target = teacher(plain.abs() / local_rms(plain.abs()), detected) * plain.unsqueeze(1)
            target = torch.lerp(target, model.spectrogram(stems), self.truth)
            target[:, -1] += added
        heard, magnitude = student.note_logits(plain + added), (plain + added).abs()
        conditioning = corrupt_notes(heard, self.wrong) if learns else heard
        estimate = student(magnitude / local_rms(magnitude), conditioning) * (plain + added).unsqueeze(1)
        c = self.train_config
        return (spectral_loss(estimate, target, l1=c.l1, floor_db=c.floor_db),
                notes_loss(heard, (own + batch["targets"]) / 2))

    loss, validation_step = JointModule.loss, JointModule.validation_step            # of stems and of notes


def train_both(args) -> None:
    bank, pieces, loops = training_data(args)
    def make(part, seed, **options):
        return NoteMixtures(as_played(bank, pieces[part], seed=seed, absent=args.absent, other=0.4, **options))
    plan = TrainConfig(steps=10**7, batch=4, learning_rate=args.rate, warmup=20, ema=0.99, floor_db=-20.0,
                       validate_every=100, save_every=20, seed=args.seed, workers=0, bf16=True, minutes=args.minutes)
    teacher = Separator.from_pretrained(args.before).at(RATE)
    module = JointlyDistilled(teacher.config, plan)
    module.learn_from(teacher, loops, p=DRUMS, truth=0.5)
    fit(module, make("train", 8000 + args.seed), Path(args.output) / "run", valid=[make("valid", 2, length=24)],
        accelerator="cpu", callbacks=[Interrupt()])
    kept = interpolate_weights(teacher, module.ema, args.share).at(44100)
    kept.save_pretrained(args.output, card=dict(steps=module.global_step))


def mean(args) -> None:
    first, second = map(FrameModel.from_pretrained, args.weights)
    interpolate_weights(first, second, 0.5).save_pretrained(args.output)


# ---- scores

MEASURES = "onset_f1", "multi_instrument_onset_f1", "onset_offset_f1"


def clarinet_sets(args, pieces):  # set, written notes, mixture (channels, samples) at 44.1 kHz
    for part in ("valid", "test"):
        for item in soundfont_items("", soundfonts()[HELD_OUT_SOUNDFONT], pieces[part], 40):
            yield f"40 mixtures of {part} pieces", item.notes, item.mixture
    sets = {"held-out soundfont, mixtures": "24 mixtures with dynamics",
            "held-out soundfont, clarinet alone": "6 clarinets alone, with dynamics"}
    for label, makers in dynamics.all_sets(args):
        for _, make in makers if label in sets else ():
            sound, parts = make()
            yield sets[label], dynamics.to_notes(parts, len(sound) / 44100), np.asarray(sound).reshape(1, -1)


def clarinets(args) -> None:
    torch.set_num_threads(1)
    transcribers = {}
    for name, folder in zip(args.weights[::2], args.weights[1::2]):
        transcribers[name] = FrameTranscriber.from_pretrained(dynamics=None)
        verifier = transcribers[name].network.network.verifier
        transcribers[name].network = FrameModel.from_pretrained(folder).eval()
        transcribers[name].network.network.verifier = verifier
    counts, own = {}, lambda notes, program: [note for note in notes if note.program == program]
    for label, true, mixture in clarinet_sets(args, PieceBank.load(args.pieces).split()):
        for name, transcriber in transcribers.items():
            found = transcriber(torch.from_numpy(mixture.astype(np.float32)), 44100, progress=False)
            by = {program: len(match_notes(own(true, program), own(found, program), offset_ratio=None))
                  for program in {note.program for note in true}}
            counts.setdefault((label, name), np.zeros(5))[:] += (
                len(match_notes(true, found, offset_ratio=None)), sum(by.values()), (len(true) + len(found)) / 2,
                by.get(CLARINET, 0), len(own(true, CLARINET)))
    def scores(hits, right, notes, clarinets, all_clarinets):
        return dict(onset_f1=hits / notes, by_instrument=right / notes, clarinets_found=clarinets / all_clarinets)
    rows = [{"set": label} | {name: scores(*counts[label, name].tolist()) for name in transcribers}
            for label in dict.fromkeys(label for label, _ in counts)]
    for row in rows: print(row)
    command = "python benchmarks/distil_notes.py clarinets " + " ".join(f'"{name}" FOLDER' for name in transcribers)
    log = read_json(LOGS / "distil_notes_run.json", {})
    write_json(LOGS / "distil_notes_run.json", log | dict(mean=dict(
        what="pieces through the held-out soundfont (TimGM6mb), the verifier that ships asked first: onset F1 and by "
             "instrument, all notes of a set together; which of a clarinet's notes are found as its own",
        command=command, rows=rows)))


def note_sets(args, pieces, bank):  # set, written notes, mixture (1, samples), sample rate
    for item in soundfont_items("", soundfonts()[HELD_OUT_SOUNDFONT], pieces, args.count):
        yield "held-out soundfont", item.notes, item.mixture, 44100
    for beside, other in (("", 0.0), (", with out-of-set", 1.0)):
        data = held_out(bank, pieces, other=other, seed=931)
        for number in range(args.count):
            performed, stems = data.item(number)
            yield f"held-out banks{beside}", reference(performed.parts, 8.0), stems.sum(0, keepdims=True), 22050
    for item in recorded_items("", Path(args.recordings), ("R01", "R02", "R03", "R04", "R05", "R06")):
        yield item.name.split("_")[0], item.notes, np.asarray(item.mixture), 44100


def melodies(args, pieces, bank):  # set, kind, sound (samples,)
    "As in `out_of_set.py`, mixtures of their own."
    programs = {name: [str(program) for program in about.programs] for name, about in INSTRUMENTS.items()}
    players = {"held-out banks": (expressive_player(bank), {name: bank.of(name) for name in bank.instruments}),
               "held-out soundfont": (soundfont_player(soundfonts()[HELD_OUT_SOUNDFONT], 22050), programs)}
    for label, (play, instances) in players.items():
        for number in range(args.melodies):
            kind, _, _, sound = out_of_set.mixture(pieces, play, instances, 29, number,
                                                   out_of_set.HELD_OUT_AUGMENTATION)
            if kind in ("clarinet", "other"): yield label, kind, sound


def tables(rows: list[dict], played: list[dict]) -> tuple[list[dict], list[dict]]:
    "Of the notes, and of who is taken for a clarinet."
    models = list(dict.fromkeys(row["weights"] for row in rows))
    table, taken = [], []
    for label in dict.fromkeys(row["set"] for row in rows):
        some = {name: [row for row in rows if (row["set"], row["weights"]) == (label, name)] for name in models}
        table.append({"set": label, "n": len(next(iter(some.values())))} | {
            name: " / ".join(f"{np.mean([row[key] for row in each]):.3f}" for key in MEASURES)
            for name, each in some.items()})
    for label in dict.fromkeys(row["set"] for row in played):
        of = {(name, kind): [row for row in played if (row["set"], row["weights"], row["kind"]) == (label, name, kind)
                             and row["notes"] >= out_of_set.LEAST] for name in models for kind in ("clarinet", "other")}
        taken.append({"set": label, "": "others that become a clarinet"} | {name: "{} of {}".format(
            sum(row["merged"] > 0.5 for row in of[name, "other"]), len(of[name, "other"])) for name in models})
        taken.append({"set": label, "": "clarinets' share of their notes"} | {
            name: f"{np.mean([row['merged'] for row in of[name, 'clarinet']]):.2f}" for name in models})
        both = {name: of[name, "clarinet"] + of[name, "other"] for name in models}
        taken.append({"set": label, "": "pairs in the right order, before merging"} | {name: "{:.2f}".format(
            roc_auc_score([row["kind"] == "clarinet" for row in some], [row["alone"] for row in some]))
            for name, some in both.items()})
    return table, taken


def score(args) -> None:
    torch.set_num_threads(1)
    register_others()
    pieces, weights = PieceBank.load(args.pieces).split()["valid"], dict(zip(args.weights[::2], args.weights[1::2]))
    bank, models = recorded_bank(args.notes, out_of_set.BANKS, sample_rate=22050), {}
    for name, folder in weights.items():
        models[name] = FrameTranscriber.from_pretrained()
        models[name].network = FrameModel.from_pretrained(folder).eval()
    rows, played = [], []
    for label, notes, mixture, rate in note_sets(args, pieces, bank):
        for name, transcriber in models.items():
            found = note_scores(notes, transcriber(torch.from_numpy(mixture.astype(np.float32)), rate, progress=False))
            rows.append(dict(set=label, weights=name) | {key: float(found[key]) for key in MEASURES})
    for label, kind, sound in melodies(args, pieces, bank):
        for name, transcriber in models.items():
            heard = out_of_set.joined(dict(set=label, kind=kind) | out_of_set.evidence_of(transcriber.network, sound))
            played.append(dict(set=label, kind=kind, weights=name, notes=heard["notes"], alone=float(heard["share"]),
                               merged=float(out_of_set.share_of_clarinet(heard, 1.0))))
    table, taken = tables(rows, played)
    command = ("python benchmarks/distil_notes.py score " + " ".join(f'"{name}" FOLDER' for name in models)
               + " --notes NOTES --recordings RECORDINGS")
    write_results(RESULTS / "distil_notes", f"""# The transcriber, its own teacher

`{command}`

Onset F1, by instrument, with offsets; means over mixtures of 8 s of validation pieces, and recordings:

{format_table(table)}

Melody instruments of mixtures of 8 s, after merging with a ratio of 1:

{format_table(taken)}
""", dict(command=command, tables=dict(notes=table, melodies=taken), rows=rows, melodies=played,
        machine=f"{processor()}, torch {torch.__version__}, one thread"))


def main():
    parser = training_arguments(__doc__, minutes=45.0, output="runs/notes")
    parser.add_argument("what", choices=["train", "both", "mean", "clarinets", "score"])
    parser.add_argument("weights", nargs="*",
                        help="of `score` and `clarinets`: a name and a folder of each; of `mean`: two folders")
    parser.add_argument("--loops", default="data/drums.npz", help="what `drums.py loops` wrote")
    parser.add_argument("--rate", type=float, default=5e-4, help="the learning rate")
    parser.add_argument("--absent", type=float, default=0.3, help="how often each instrument does not play")
    parser.add_argument("--dirt", type=float, default=0.0,
                        help="share of the mixtures coded as MP3; half of it drifts, a quarter gets a constant")
    parser.add_argument("--concert-pitch", type=float, default=0.0, help="cents by which half of the pieces may be off")
    parser.add_argument("--share", type=float, default=0.5, help="how much of the way to the trained weights is kept")
    parser.add_argument("--before", default="trio-notes", help="a transcriber, or of `both` a separator: the teacher")
    parser.add_argument("--notes", default="../shared/reference/notes", help="folder with recorded notes")
    parser.add_argument("--recordings", default="../shared/reference/recordings", help="folder with recordings")
    parser.add_argument("--count", type=int, default=24, help="mixtures of each set to score")
    parser.add_argument("--melodies", type=int, default=110, help="mixtures of each set to count clarinets in")
    args = parser.parse_args()
    dict(train=train, both=train_both, mean=mean, clarinets=clarinets, score=score)[args.what](args)


if __name__ == "__main__": main()
