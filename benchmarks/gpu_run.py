"""trio-informed and the transcriber inside it, trained on on a GPU, on mixtures as they are played.

    python benchmarks/gpu_run.py record --recorded ../shared/reference/notes --bank recorded.safetensors
    python benchmarks/gpu_run.py pack --bank recorded.safetensors --base base.npz
    python benchmarks/gpu_run.py bank --base base.npz --bank bank.safetensors --workers 15
    python benchmarks/gpu_run.py train --bank bank.safetensors --pieces pieces.npz --minutes 9 --workers 10 -o runs/gpu
    python benchmarks/gpu_run.py shift --joint runs/gpu/joint.safetensors --notes 0.25 --masks 1 -o runs/shifted

`record` makes a note bank of recorded notes and of the soundfonts that are not held out; `--leave-out` names folders
that are. `pack` makes of it a file that is small enough to carry (Ogg Vorbis), and
`bank` makes of that file the note bank to train on: each recorded instrument varied, and invented ones beside them.
`train` goes on from the weights that ship, as `JointModule` does: three batches of 32 mixtures of 6 s, then one of 16
of 12 s. The averaged weights are kept after 40, 70 and 100 % of the time in OUTPUT/joint.safetensors, in 16 bits, and
the log in OUTPUT/joint.json. Nothing is resumed: it is a run of minutes.

`shift` moves the priors of such weights, which is what ships: it adds --notes to the biases of the clarinet's onsets
and frames, and --masks to that of its mask, takes as much from those of out-of-set instruments, and writes the
separator to OUTPUT and the transcriber inside it to OUTPUT/notes.
"""
import io
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from instsep.core import TRIO, atomic_path
from instsep.frames import OUTPUT_HEADS
from instsep.mixtures import INSTRUMENTS, Mixtures, balanced
from instsep.music.pieces import PieceBank
from instsep.sound.invent import invent, vary
from instsep.sound.notebank import NoteBank, RecordedNote, record_folder, record_soundfont
from instsep.training.frames import NoteMixtures
from instsep.training.performance import ROUGH_AUGMENTATION, expressive_player, humanize_ornamented, rubato
from instsep.training.separator import TrainConfig
from common import (HELD_OUT_SOUNDFONT, joint_module, register_others, soundfonts, training_arguments,
                    weights_of_groups, write_json)

RATE = 22050
SHAPES = (32, 6.0), (32, 6.0), (32, 6.0), (16, 12.0)         # mixtures of a batch, seconds of each; in turns
ABSENT, OTHER, OPTIONS = 0.27, 0.4, dict(learning_rate=1e-3, warmup=40, ema=0.998, floor_db=-20.0, clip=5.0)
MARKS = 0.4, 0.7, 1.0                                        # shares of the time
INVENTED = dict(clarinet=60, guitar=40, piano=40, flute=30, violin=15)
# how often each out-of-set instrument is drawn, up to three at once; those not named: 1
OTHER_WEIGHTS = dict(flute=6, oboe=4, bassoon=4, saxophone=4, violin=4, voice=3, trumpet=3, cello=3, viola=2,
                     recorder=2, piccolo=2, choir=2, harp=2) | {"soprano-sax": 3, "french-horn": 3, "english-horn": 2}
VARIATIONS = dict(clarinet=16, guitar=8, piano=8, flute=6, saxophone=3, violin=3)  # of others, and electric guitars: 1


# ---- the note bank

# folders of recorded notes whose name is not that of their instrument
SPELLINGS = dict(alto_sax="saxophone", tenor_sax="saxophone", soprano_sax="soprano-sax",
                 baritone_sax="baritone-sax", horn="french-horn", steel_drum="steel-drum", cello_pizz="pizzicato",
                 violin_pizz="pizzicato", doublebass_pizz="pizzicato", contrabass_pizz="pizzicato",
                 voice_female_ah="voice", voice_female_oo="voice", voice_male_ah="voice", voice_male_oo="voice")


def record(folder: Path, bank: Path, left_out: list[str]) -> None:
    "Electric guitars are named so, since `weights_of_groups` has them rarely; a bass clarinet is no instrument here."
    made = []
    for place in sorted(folder.glob("*/*/")):
        if place.parent.name in left_out or place.name == "bass_clarinet": continue
        name = "guitar" if place.name.startswith("guitar") else SPELLINGS.get(place.name, place.name)
        electric = "electric-" if place.name == "guitar_electric" else ""
        made.append(record_folder(place, name, instance=f"{electric}{place.parent.name}/{place.name}",
                                  sample_rate=RATE, progress=False))
    programs = {name: list(about.programs) for name, about in INSTRUMENTS.items()}
    pitches = {name: (about.low, about.high) for name, about in INSTRUMENTS.items()}
    for name, path in soundfonts().items():
        if name == HELD_OUT_SOUNDFONT: continue
        trio = {name: programs[name] for name in TRIO}
        made.append(record_soundfont(path, trio, pitches=pitches, velocities=(40, 70, 100), sample_rate=RATE))
        others = {name: some for name, some in programs.items() if name not in trio}
        made.append(record_soundfont(path, others, pitches=pitches, step=5, velocities=(80,), sample_rate=RATE))
    bank.parent.mkdir(parents=True, exist_ok=True)
    sum(made[1:], made[0]).save(bank)


def pack(bank: Path, base: Path, level: float) -> None:
    import soundfile
    notes, coded = NoteBank.load(bank).notes(), []
    for note in notes:
        file = io.BytesIO()
        soundfile.write(file, 0.9 * note.wave / max(float(np.abs(note.wave).max()), 1e-9), RATE, format="OGG",
                        subtype="VORBIS", compression_level=level)
        coded.append(np.frombuffer(file.getvalue(), np.uint8))
    table = [(n.instrument, n.instance, n.pitch, n.velocity, n.release, float(np.abs(n.wave).max()) / 0.9, len(n.wave))
             for n in notes]
    with atomic_path(base) as temporary, open(temporary, "wb") as file:
        np.savez(file, data=np.concatenate(coded), sizes=np.array([len(one) for one in coded]),
                 table=np.frombuffer(json.dumps(table).encode(), np.uint8))


def unpack(base: Path) -> list[RecordedNote]:
    import soundfile
    with np.load(base) as held: data, sizes, table = held["data"], held["sizes"], json.loads(bytes(held["table"]))
    ends, notes = np.cumsum(sizes), []
    for (instrument, instance, pitch, velocity, release, scale, length), end, size in zip(table, ends, sizes):
        wave = soundfile.read(io.BytesIO(data[end - size:end].tobytes()), dtype="float32")[0][:length] * scale
        if len(wave) > RATE // 50: notes.append(RecordedNote(instrument, instance, pitch, velocity, wave, release))
    return notes


def more_notes(job) -> list[RecordedNote]:  # job: notes to vary and how often, or a name and a seed to invent
    what, number = job
    if isinstance(what, str): return invent(what, number, step=4, sample_rate=RATE)
    return vary(NoteBank.from_notes(what, RATE), number)


def times(note: RecordedNote) -> int:  # how many variations of an instrument are made
    if note.instance.startswith("electric-"): return 1
    count = VARIATIONS.get(note.instrument, 1)
    return min(count, 6) if note.instance.rsplit("/", 1)[-1].isdigit() else count         # of a soundfont's, fewer


def make_bank(base: Path, path: Path, workers: int) -> None:
    begun, notes, kinds = time.monotonic(), unpack(base), {}
    for note in notes: kinds.setdefault((note.instrument, note.instance), []).append(note)
    jobs = [(own, times(own[0])) for own in kinds.values()]
    jobs += [(name, seed) for name, count in INVENTED.items() for seed in range(count)]
    jobs.sort(key=lambda job: 300 if isinstance(job[0], str) else -len(job[0]) * job[1])
    with ProcessPoolExecutor(workers) as pool:
        for made in pool.map(more_notes, jobs): notes += made
    bank = NoteBank.from_notes(notes, RATE)
    bank.save(path)
    print(f"{bank}: {dict((name, len(bank.of(name))) for name in bank.instruments)}, "
          f"{time.monotonic() - begun:.0f} s", flush=True)


# ---- training

def mixtures(bank: NoteBank, pieces, seconds: float, seed: int, **options) -> NoteMixtures:
    return NoteMixtures(Mixtures(pieces, expressive_player(bank), balanced(bank, weights_of_groups(bank)),
                                 instruments=TRIO, sample_rate=RATE, seconds=seconds, seed=seed,
                                 absent=ABSENT, other=OTHER,
                                 performance=humanize_ornamented, tempo=rubato, augmentation=ROUGH_AUGMENTATION,
                                 most_others=3, other_weights=OTHER_WEIGHTS, **options))


def stacked(items: list[dict]) -> dict:
    "A batch of mixtures, in 16 bits."
    return dict(stems=torch.stack([(item["stems"] * 16384).clamp(-32768, 32767).short() for item in items]),
                targets=torch.stack([item["targets"].half() for item in items]))


class Batches(Dataset):
    "Whole batches of mixtures, in 16 bits: number `index` is always the same."
    def __init__(self, bank, pieces, seed: int, shapes=SHAPES):
        self.shapes = shapes
        self.sets = {seconds: mixtures(bank, pieces, seconds, seed + int(seconds)) for _, seconds in shapes}

    def __len__(self): return 1_000_000

    def __getitem__(self, index: int) -> dict:
        torch.set_num_threads(1)
        count, seconds = self.shapes[index % len(self.shapes)]
        return stacked([self.sets[seconds][index * 32 + k] for k in range(count)])


def on(device, batch: dict) -> dict:
    stems = batch["stems"].to(device, non_blocking=True).float() / 16384
    return dict(stems=stems, targets=batch["targets"].to(device, non_blocking=True).float())


def kept(module, share: float) -> dict:
    return {f"{share:g}/{name}": value.detach().half().cpu().contiguous()
            for name, value in module.ema.state_dict().items()}


@torch.no_grad()
def validate(module, batches, device) -> dict:
    with torch.autocast(device, torch.bfloat16):
        found = [[float(x) for x in module.losses(module.ema, on(device, batch))] for batch in batches]
    stems, notes = np.mean(found, 0)
    return dict(valid_loss=stems + module.notes * notes, valid_stems=stems, valid_notes=notes)


def train(options) -> None:
    register_others()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    bank, pieces, out = NoteBank.load(options.bank), PieceBank.load(options.pieces).split(), Path(options.output)
    out.mkdir(parents=True, exist_ok=True)
    shapes = tuple((max(1, count // options.smaller), seconds) for count, seconds in SHAPES)
    data = Batches(bank, pieces["train"], 4000 + options.seed, shapes)
    loader = DataLoader(data, None, shuffle=False, num_workers=options.workers,
                        prefetch_factor=3 if options.workers else None, pin_memory=device == "cuda")
    feed, fixed = iter(loader), mixtures(bank, pieces["valid"], 6.0, 2, length=32)
    plan = TrainConfig(steps=10**7, batch=32, seed=options.seed, minutes=options.minutes, bf16=True, **OPTIONS)
    module = joint_module(plan)
    valid = [stacked([fixed[k] for k in range(32 // options.smaller)])]
    module.to(device)
    optimizer = torch.optim.AdamW(module.model.parameters(), plan.learning_rate, weight_decay=1e-3,
                                  fused=device == "cuda")
    log = dict(about=__doc__.splitlines()[0], hardware=torch.cuda.get_device_name() if device == "cuda" else "a CPU",
               shapes=shapes, absent=ABSENT, other=OTHER, notes_of_bank=repr(bank), workers=options.workers,
               train=asdict(plan), versions=dict(torch=torch.__version__), log=[validate(module, valid, device)
                                                                              | dict(step=0)])
    end = min(time.time() + 60 * options.minutes, options.deadline or math.inf)
    begun, weights, losses, step, hours = time.time(), {}, [], 0, 0.0
    share = lambda: (time.time() - begun) / (end - begun)
    print(json.dumps(log["log"][-1]), flush=True)
    while share() < 1:
        rate = plan.learning_rate * min(1, (step + 1) / plan.warmup) * (0.5 + 0.5 * math.cos(math.pi * share())) + 1e-6
        for group in optimizer.param_groups: group["lr"] = rate
        batch = on(device, next(feed))
        with torch.autocast(device, torch.bfloat16): loss = module.loss(module.model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(module.model.parameters(), plan.clip)
        if torch.isfinite(norm): optimizer.step()
        decay = min(plan.ema, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(module.ema.parameters()), list(module.model.parameters()), step)
        step, hours = step + 1, hours + batch["stems"].shape[0] * batch["stems"].shape[-1] / RATE / 3600
        losses.append(float(loss.detach()))
        due = [mark for mark in MARKS[:-1] if share() >= mark and f"{mark:g}" not in weights]
        if step % 25 == 0 or due:
            log["log"].append(dict(step=step, seconds=round(time.time() - begun, 1), loss=float(np.mean(losses[-25:]))))
            if due or step % 200 == 0: log["log"][-1] |= validate(module, valid, device)
            if step % 100 == 25 or due:
                log["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0
            print(json.dumps(log["log"][-1]), flush=True)
        if due:
            weights[f"{due[0]:g}"] = kept(module, due[0])
            write(out, weights, log)
    weights["1"] = kept(module, 1.0)
    log["log"].append(dict(step=step, seconds=round(time.time() - begun, 1)) | validate(module, valid, device))
    log |= dict(steps=step, minutes=round((time.time() - begun) / 60, 2), hours_of_audio=round(hours, 1))
    write(out, weights, log)
    print(json.dumps(log["log"][-1]), flush=True)


def write(out: Path, weights: dict, log: dict) -> None:
    with atomic_path(out / "joint.safetensors") as temporary:
        save_file({name: value for each in weights.values() for name, value in each.items()}, str(temporary))
    write_json(out / "joint.json", log)


def shift(joint: Path, mark: float, notes: float, masks: float, output: Path) -> None:  # mark: share of the time
    before, module = f"{mark:g}/", joint_module(TrainConfig(steps=1))
    module.ema.load_state_dict({name.removeprefix(before): value for name, value in load_file(joint).items()
                                if name.startswith(before)})
    network, clarinet = module.ema.network, TRIO.index("clarinet")
    with torch.no_grad():
        mask = network.head[-1].bias.unflatten(0, (network.stems, -1))  # (stems, frames of a step)
        note = network.notes.head[-1].bias.unflatten(0, (len(OUTPUT_HEADS), network.stems, -1))[:2]  # onsets, frames
        mask[clarinet] += masks
        mask[-1] -= masks
        note[:, clarinet] += notes
        note[:, -1] -= notes
    module.keep(output, dict(joint=joint.name, mark=mark, notes=notes, masks=masks))


def main():
    parser = training_arguments(__doc__, minutes=9.0, output="runs/gpu")
    parser.add_argument("what", choices=["record", "pack", "bank", "train", "shift"])
    parser.add_argument("--recorded", default="../shared/reference/notes", help="folder with recorded notes")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="FOLDER", help="of it, not to record")
    parser.add_argument("--base", default="data/base.npz", help="the note bank before it was varied, packed")
    parser.add_argument("--level", type=float, default=0.9, help="of Vorbis's compression, 0 to 1")
    parser.add_argument("--deadline", type=float, help="end then, in seconds since 1970, if that is sooner")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--smaller", type=int, default=1, help="divides the batches: to try it on a CPU")
    parser.add_argument("--joint", default="runs/gpu/joint.safetensors", help="what `train` wrote")
    parser.add_argument("--mark", type=float, default=1.0, help="share of the time after which they were kept")
    parser.add_argument("--notes", type=float, default=0.25, help="by how much the biases of onsets and frames move")
    parser.add_argument("--masks", type=float, default=1.0, help="by how much those of the masks do")
    args = parser.parse_args()
    if args.what == "record":
        register_others()
        return record(Path(args.recorded), Path(args.bank), args.leave_out)
    if args.what == "pack": return pack(Path(args.bank), Path(args.base), args.level)
    if args.what == "bank": return make_bank(Path(args.base), Path(args.bank), args.workers)
    if args.what == "shift": return shift(Path(args.joint), args.mark, args.notes, args.masks, Path(args.output))
    train(args)


if __name__ == "__main__": main()
