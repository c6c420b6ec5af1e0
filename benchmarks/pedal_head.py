"""Train the network that finds a piano's sustain pedal in the posteriors, and how often it is right.

    OMP_NUM_THREADS=1 python benchmarks/pedal_head.py --train --bank data/bank.safetensors --pieces data/pieces.npz \\
        --notes ../shared/reference/notes
    OMP_NUM_THREADS=1 python benchmarks/pedal_head.py --pieces data/pieces.npz --notes ../shared/reference/notes \\
        --performances ../shared/reference/performances

The transcriber stays as it is. Its target is a pedal that is made up (`Pedalling`); performances are looked at last,
and nothing is chosen by them.
"""
import hashlib
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import (HELD_OUT_SOUNDFONT, LOGS, RESULTS, recorded_bank, soundfonts, train_averaged, train_or_score,
                    training_arguments, transcriber_for, write_json, write_results)
from dynamics import BANKS, TRIO
from offsets import RATE, mono, transcribed
from pedal import EXCERPTS, STEP, overlap, pedal_of
from instsep.core import atomic_path
from instsep.inference.pedal_head import PedalNetwork, pedal_planes, pedal_spans
from instsep.inference.registry import PEDAL_WEIGHTS, WEIGHTS
from instsep.metrics import format_table
from instsep.mixtures import INSTRUMENTS, Gain, Mixtures, Room, balanced, soundfont_player
from instsep.music.notes import Note, read_midi
from instsep.music.pedal import between_ends, find_pedal
from instsep.music.pieces import PieceBank
from instsep.sound.notebank import NoteBank
from instsep.sound.soundfont import synthesize
from instsep.training.performance import (PERFORMED_AUGMENTATION, RecordingDirt, expressive_player,
                                          humanize_phrases, phrase_velocities, repeat_notes)

SECONDS, PIANO = 12.0, TRIO.index("piano")
CHOICES = dict(channels=8, hidden=48, dropout=0.2, learning_rate=3e-3, batch=12, minutes=1.5)


# ---- a pedal that is made up

class Pedalling:
    """How instruments are played, a piano with a pedal: `humanize_phrases` for all others. `spans` has the last
    piano's pedal, `keys` how long its keys were held."""
    def __init__(self, seconds=SECONDS): self.seconds = seconds

    def __call__(self, notes, instrument, rng):
        if instrument.name != "piano": return humanize_phrases(notes, instrument, rng)
        self.spans, self.keys = np.zeros((0, 2)), np.zeros((0, 4))
        if not len(notes): return notes
        self.spans, self.keys = self._spans(notes, rng), self._keys(notes, instrument, rng)
        return sounding(self.keys, self.spans)

    def _keys(self, notes, instrument, rng):
        "Not quite on the beat, chords now and then rolled, keys held from a fifth of their length to all of it."
        if rng.random() < 0.1: notes = repeat_notes(notes, rng)
        notes = notes[np.argsort(notes[:, 0], kind="stable")].copy()
        count, onset, length = len(notes), notes[:, 0].copy(), notes[:, 1] - notes[:, 0]
        delay = rng.uniform(0.005, 0.04) if rng.random() < 0.25 else 0.0
        roll, place = np.zeros(count), 0
        for k in range(1, count):
            place = place + 1 if onset[k] - onset[k - 1] < 0.03 else 0
            roll[k] = delay * place
        notes[:, 0] = onset + roll + rng.normal(0, 0.008, count)
        low, high = ((0.9, 1.06), (0.6, 1.0), (0.2, 0.6))[rng.choice(3, p=(0.5, 0.3, 0.2))]
        share = rng.uniform(low, high, count)
        pedal, early = covered(self.spans, notes[:, 0] + 0.1), rng.uniform(0.0, 0.6)
        share = np.where(pedal & (rng.random(count) < early), share * rng.uniform(0.3, 1, count), share)
        notes[:, 1] = notes[:, 0] + np.maximum(length * share, 0.06)
        notes[:, 3] = phrase_velocities(notes, instrument, rng)
        return notes

    def _spans(self, notes, rng):
        "Passages with and without a pedal; in those with it, it changes with the bass, with time, or seldom."
        everywhere = rng.random()
        edges, begin = [], -2.0
        while begin < self.seconds:
            end = begin + (rng.uniform(2, 6) if everywhere > 0.7 else 100)
            if everywhere < 0.7 or (everywhere < 0.9 and rng.random() < 0.55): edges.append((begin, end))
            begin = end
        onsets = np.unique(notes[:, 0].round(2))
        chords = onsets[np.append(True, np.diff(onsets) > 0.05)]
        spans = [span for edge in edges for span in self._passage(notes, chords, *edge, rng)]
        if not edges or rng.random() < 0.15:       # short touches
            spans += [(at, at + rng.uniform(0.15, 0.6)) for at in chords if rng.random() < 0.04]
        spans = np.array(sorted(spans)).reshape(-1, 2)
        spans[:-1, 1] = np.minimum(spans[:-1, 1], spans[1:, 0] - 0.06)
        return spans[spans[:, 1] - spans[:, 0] > 0.08]

    def _passage(self, notes, chords, begin, end, rng):
        "Down and up again, between two times."
        style = rng.choice(("bass", "time", "seldom"), p=(0.45, 0.4, 0.15))
        least = rng.uniform(2.5, 8) if style == "seldom" else float(np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
        bass = np.quantile(notes[:, 2], rng.uniform(0.2, 0.45))
        at, changes = begin - 100, []
        for chord in chords[(chords >= begin) & (chords < end)]:
            low = notes[np.abs(notes[:, 0] - chord) < 0.05, 2].min() <= bass
            if chord - at < (least if style != "bass" else 0.35 if low else 4): continue
            changes.append(chord)
            at = chord
        if not changes: return []
        syncopated = rng.random() < 0.8
        late, gap = rng.uniform(-0.02, 0.08), (rng.uniform(0.08, 0.2), rng.uniform(0.2, 0.3))
        spans = []
        for here, following in zip(changes, [*changes[1:], min(changes[-1] + least, end)]):
            if rng.random() < 0.05: continue
            if syncopated:   # up just after the chord, down when it is caught
                up = here + late + rng.normal(0, 0.02)
                spans.append((up + rng.uniform(*gap), following + late + rng.normal(0, 0.02)))
            else:            # down with the chord, up before the next one
                spans.append((here + rng.uniform(-0.03, 0.12), here + (following - here) * rng.uniform(0.6, 0.95)))
        for k in range(len(spans) - 1):
            if rng.random() < 0.1: spans[k] = spans[k][0], max(spans[k][0], spans[k][1] - rng.uniform(0, 0.4))
        return [(down, up) for down, up in spans if up - down > 0.08]


def covered(spans, at):  # bool
    "Whether the pedal is down at these times."
    k = np.searchsorted(spans[:, 0], at, side="right") - 1
    return (k >= 0) & (at < spans[k, 1]) if len(spans) else np.zeros(len(at), bool)


def sounding(keys, spans):
    "As long as they sound: to the later of key and pedal, or until the key is struck again."
    notes = keys.copy()
    held = covered(spans, notes[:, 1])
    k = np.searchsorted(spans[:, 0], notes[:, 1], side="right") - 1
    notes[held, 1] = spans[k[held], 1]
    order = np.lexsort((notes[:, 0], notes[:, 2]))
    same = np.diff(notes[order, 2]) == 0
    before, after = order[:-1][same], order[1:][same]
    notes[before, 1] = np.maximum(np.minimum(notes[before, 1], notes[after, 0]), notes[before, 0] + 0.02)
    return notes


# ---- what is transcribed

def weights_id():
    "Of the transcriber's weights: what is kept between runs belongs to them."
    return hashlib.blake2b((WEIGHTS / "trio-notes/model.safetensors").read_bytes(), digest_size=4).hexdigest()


def mixtures(pieces, player, instances, seed, alone, **options):
    "A piano alone, or with others; the pedal is the `performance`'s."
    return Mixtures(pieces, player, {"piano": instances["piano"]} if alone else instances,
                    instruments=("piano",) if alone else TRIO, seconds=SECONDS, seed=seed,
                    performance=Pedalling(), **options)


def examples(transcriber, bank, pieces, count, seed=5150):
    "Posteriors and energy as they are stored, and whether the pedal is down, of mixtures with a piano."
    sets = [mixtures(pieces, expressive_player(bank), balanced(bank), seed + alone, alone, sample_rate=RATE,
                     absent=0.3, other=0 if alone else 0.3, augmentation=PERFORMED_AUGMENTATION)
            for alone in (False, True)]
    rate, made, i = transcriber.network.frame_rate, 0, -1
    while made < count:
        i += 1
        alone = i % 5 < 3
        data = sets[alone]
        score, stems = data.item(i)
        if not len(score.parts.get("piano", ())) or stems[data.stems.index("piano")].std() < 1e-4: continue
        active = [PIANO] if alone and i % 2 else None
        *_, meter, views = transcribed(transcriber, stems.sum(0).astype(np.float32), active)
        frames = len(views.posteriors)
        made += 1
        yield (views.posteriors.read(0, frames).reshape(frames, 2, len(TRIO), -1), meter.energy.read(-2, frames + 2),
               covered(data.performance.spans, np.arange(frames) / rate))


PART = 20  # items in a file


def pool(args, transcriber):
    "What training sees, made once, some items a file; a run that was stopped goes on."
    places = [Path(args.cache) / f"items_{weights_id()}_{k}.npz" for k in range(args.count // PART)]
    if not all(place.is_file() for place in places):
        bank, pieces = NoteBank.load(args.bank), PieceBank.load(args.pieces).split()["train"]
        for k, place in enumerate(places):
            if place.is_file(): continue
            posteriors, energy, down = zip(*examples(transcriber, bank, pieces, PART, 5150 + 10 * k))
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(place) as temporary, open(temporary, "wb") as file:
                np.savez(file, posteriors=np.stack(posteriors), energy=np.stack(energy), down=np.stack(down))
            print(place.name, round(time.process_time()), flush=True)
    held = [np.load(place) for place in places]
    return [np.concatenate([part[name] for part in held]) for name in ("posteriors", "energy", "down")]


# ---- training

def as_planes(posteriors, energy):
    "What the network sees of one item: (planes, pitches, frames), an even number of frames."
    frames = len(posteriors) // 2 * 2
    return pedal_planes(posteriors[:frames], energy[:frames + 4], PIANO)


def train(planes, down, *, channels, hidden, dropout, learning_rate, batch, minutes, seed, left_out=()):
    "A network with averaged weights, and the mean loss of each pass."
    torch.manual_seed(seed)
    draw, length = np.random.default_rng(seed), 344
    network = PedalNetwork(channels=channels, hidden=hidden, dropout=dropout)
    def batches(): return np.split(draw.permutation(len(planes)), range(batch, len(planes), batch))
    def loss(some):
        first = draw.integers(0, planes[0].shape[2] - length + 1, len(some))
        seen = torch.from_numpy(np.stack([planes[i][:, :, k:k + length] for i, k in zip(some, first)])).float()
        true = torch.from_numpy(np.stack([down[i][k:k + length] for i, k in zip(some, first)])).float()
        seen = torch.roll(seen, int(draw.integers(-6, 7)), 2) + 0.05 * torch.randn_like(seen)
        seen[:, list(left_out)] = 0
        return nn.functional.binary_cross_entropy_with_logits(network(seen), 0.02 + 0.96 * true)
    return network, train_averaged(network, batches, loss, learning_rate=learning_rate, minutes=minutes)


# ---- scores

def as_item(transcriber, wave, spans, active, **about):
    "What is needed of a recording to score it."
    notes, who, meter, views = transcribed(transcriber, wave, active)
    notes = transcriber.with_dynamics(notes, who, meter, views)
    frames = len(views.posteriors)
    return dict(about, spans=spans, seconds=len(wave) / RATE,
                piano=[Note(on, off, int(pitch), 80) for on, off, pitch, _ in notes[who == PIANO].tolist()],
                posteriors=views.posteriors.read(0, frames).reshape(frames, 2, len(TRIO), -1),
                energy=meter.energy.read(-2, frames + 2))


def held_out_items(args, transcriber):
    "Validation pieces on pianos that no training heard, alone and with others."
    pieces, fonts = PieceBank.load(args.pieces).split()["valid"], soundfonts()
    players = []
    if args.notes and Path(args.notes).is_dir():
        bank = recorded_bank(args.notes, BANKS)
        players.append(("held-out pianos", expressive_player(bank, tuning=5.0), {n: bank.of(n) for n in TRIO}))
    if HELD_OUT_SOUNDFONT in fonts:
        programs = {name: [str(program) for program in INSTRUMENTS[name].programs[:2]] for name in TRIO}
        players.append(("held-out soundfont", soundfont_player(fonts[HELD_OUT_SOUNDFONT], 44100), programs))
    for k, (label, player, instances) in enumerate(players):
        for alone in (True, False):
            data = mixtures(pieces, player, instances, 930 + 2 * k + alone, alone, sample_rate=44100, absent=0.2,
                            augmentation=(Gain((-5, 5)), Room(0.3), RecordingDirt(0.3)))
            made, i, transcribes = 0, -1, transcriber_for(label, transcriber)
            while made < args.items:
                i += 1
                played, stems = data.item(i)
                if not len(played.parts.get("piano", ())) or stems[data.stems.index("piano")].std() < 1e-4: continue
                made += 1
                yield as_item(transcribes, mono(stems.sum(0)), data.performance.spans, [PIANO] if alone else None,
                              set=f"{label}, {'alone' if alone else 'with others'}")


def performed_items(args, transcriber):
    "20 s of six performances, played by the default soundfont, as benchmarks/pedal.py has them."
    for path in [Path(args.performances) / f"{name}.mid" for name in EXCERPTS]:
        notes = [note for note in read_midi(path) if note.offset < 20]
        spans = [(down, min(up, 20)) for down, up in pedal_of(path) if down < 20]
        item = as_item(transcriber, mono(synthesize(notes)), spans, [PIANO], set="20 s of six performances")
        yield item | dict(seconds=max(note.offset for note in item["piano"]) + 1)


def kept(args, name, make):
    "What was transcribed once, for these weights."
    place = Path(args.cache) / f"{name}_{weights_id()}.pickle"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary, open(temporary, "wb") as file: pickle.dump(list(make()), file)
    with open(place, "rb") as file: return pickle.load(file)


@torch.inference_mode()
def probability(network, item, left_out=()):
    planes = torch.from_numpy(as_planes(item["posteriors"], item["energy"]))[None]
    planes[:, list(left_out)] = 0
    return network(planes)[0].sigmoid().numpy()


THRESHOLDS = np.arange(0.2, 0.81, 0.05)
ENERGY = (4, 5)  # planes


def found_spans(items, network, rate):
    return [pedal_spans(probability(network, item), rate) for item in items]


def compared(items, spans):
    "Scores of times found in items."
    return overlap([(found, item["spans"], round(item["seconds"] / STEP)) for found, item in zip(spans, items)])


def written_spans(items, spans):
    "As they are written: up for a moment where a note ends."
    return [between_ends(found, item["piano"]) for found, item in zip(spans, items)]


def with_seeds(label, rows):
    "The mean of some seeds, and in `seeds` from the lowest F1 to the highest."
    f1 = [row["f1"] for row in rows]
    return dict(found_by=label, **{name: float(np.mean([row[name] for row in rows])) for name in rows[0]},
                seeds=f"{min(f1):.3f} to {max(f1):.3f}" if len(rows) > 1 else "")


def scores_of(items, networks, rate):  # networks: of one kind, a seed each
    "Rows of one set."
    spans = [found_spans(items, network, rate) for network in networks]
    yield with_seeds("the rule on ends of notes", [compared(items, [find_pedal(item["piano"]) for item in items])])
    yield with_seeds("always down", [compared(items, [[(0, item["seconds"])] for item in items])])
    yield with_seeds("the network", [compared(items, some) for some in spans])
    yield with_seeds("the network, as it is written", [compared(items, written_spans(items, some)) for some in spans])


def by_set(items):
    return {name: [item for item in items if item["set"] == name] for name in dict.fromkeys(i["set"] for i in items)}


def best_threshold(sets, network, rate, left_out=()):
    "Which gives the best mean F1 of all sets, and the means of all."
    likely, means = {name: [probability(network, item, left_out) for item in items] for name, items in sets.items()}, {}
    for threshold in THRESHOLDS.round(2).tolist():
        spans = {name: [pedal_spans(one, rate, threshold=threshold) for one in some] for name, some in likely.items()}
        means[threshold] = float(np.mean([compared(items, spans[name])["f1"] for name, items in sets.items()]))
    return max(means, key=means.get), means


def train_and_write(args, transcriber):
    posteriors, energy, down = pool(args, transcriber)
    sets = by_set(kept(args, f"held_out_{args.items}", lambda: held_out_items(args, transcriber)))
    planes = [as_planes(*pair).astype(np.float16) for pair in zip(posteriors, energy)]
    rate, tried = transcriber.network.frame_rate, []
    for left_out in (((), ENERGY) if args.ablate else ((),)):
        for seed in range(args.seeds):
            network, passes = train(planes, down, seed=seed, left_out=left_out, **CHOICES | dict(minutes=args.minutes))
            threshold, means = best_threshold(sets, network, rate, left_out)
            tried.append(dict(seed=seed, planes="all" if not left_out else "without energy", threshold=threshold,
                              f1_by_threshold={key: round(value, 4) for key, value in means.items()},
                              losses=[round(value, 3) for value in passes]))
            print(tried[-1], flush=True)
            if not left_out:
                with torch.no_grad():  # so that 0.5 is the threshold that was best
                    network.output.bias -= float(np.log(threshold / (1 - threshold)))
                network.save(Path(args.cache) / f"pedal_{seed}.safetensors")
    shutil.copyfile(Path(args.cache) / "pedal_0.safetensors", WEIGHTS / "trio-notes" / PEDAL_WEIGHTS)
    write_json(LOGS / "pedal_run.json", dict(
        command="OMP_NUM_THREADS=1 python benchmarks/pedal_head.py --train --bank BANK --pieces PIECES --notes NOTES",
        mixtures=len(planes), seconds_each=SECONDS, down=float(np.mean(down)),
        weights=sum(p.numel() for p in network.parameters()), torch=torch.__version__,
        **CHOICES | dict(minutes=args.minutes), ships="seed 0", measure="mean F1 of the held-out sets, frames of 10 ms",
        runs=tried))


def table(args, transcriber):
    rows, rate = [], transcriber.network.frame_rate
    networks = [PedalNetwork.load(path) for path in sorted(Path(args.cache).glob("pedal_?.safetensors"))]
    networks = networks or [PedalNetwork.load(WEIGHTS / "trio-notes" / PEDAL_WEIGHTS)]
    items = kept(args, f"held_out_{args.items}", lambda: held_out_items(args, transcriber))
    if args.performances:
        items = items + kept(args, "performed", lambda: performed_items(args, transcriber))
    for name, some in by_set(items).items(): rows += [{"set": name} | row for row in scores_of(some, networks, rate)]
    command = ("OMP_NUM_THREADS=1 python benchmarks/pedal_head.py --pieces PIECES --notes NOTES "
               "--performances PERFORMANCES")
    text = f"""# The network that finds the sustain pedal

`{command}`

The time in which the pedal is down, in steps of 10 ms; {args.items} items of {SECONDS:g} s in each synthetic set,
validation pieces on pianos that no training heard. The threshold was chosen on these. The performances were looked at
last. `found` and `down`: the share of time in which it is found to be down, and is.
Seeds: {len(networks)}, F1 from the lowest to the highest.

{format_table(rows, digits=3)}
"""
    write_results(RESULTS / "pedal_head", text, dict(command=command, rows=rows))


def main():
    parser = training_arguments(__doc__, cache="data/pedal")
    parser.add_argument("--notes", help="folder with recorded notes of the held-out pianos")
    parser.add_argument("--performances", help="folder with performances with a pedal")
    parser.add_argument("--seeds", type=int, default=3, help="trainings; the first one ships")
    parser.add_argument("--minutes", type=float, default=CHOICES["minutes"], help="of a processor, for each training")
    parser.add_argument("--ablate", action="store_true", help="also train without the energy of partials")
    parser.add_argument("--count", type=int, default=160, help="mixtures to train on")
    parser.add_argument("--items", type=int, default=16, help="items of each set to score")
    train_or_score(parser, train_and_write, table)


if __name__ == "__main__":
    main()
