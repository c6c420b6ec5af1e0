#!/usr/bin/env python3
"""Speed and likeness of the note bank against FluidSynth, on one core, with the same song.

Schubert's "Der Lindenbaum" (from music21's corpus) in its three parts: the voice on the clarinet, the pianist's
right hand on the guitar, the left on the piano, at 44.1 kHz. The bank holds every pitch at every velocity that the
song asks for, so that the two can be compared sample by sample. Both play in turn, several times; the median counts.
Times are processor time of one thread, so that other programs on the machine do not spoil them.

    OMP_NUM_THREADS=1 python benchmarks/notebank_speed.py --out benchmarks/results/notebank_speed
"""
import csv
from pathlib import Path

import numpy as np

from instsep.sound.notebank import NoteBank, record_soundfont, render
from instsep.music.notes import Note
from instsep.music.pieces import CLASSICAL_WORKS, PieceBank
from instsep.sound.soundfont import Synthesizer, default_soundfont
from common import arguments, cpu_time, processor, write_text

RATE, PROGRAMS = 44100, dict(clarinet=71, guitar=24, piano=0)


def snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - estimate).sum()))


def record(parts: dict[str, np.ndarray], soundfont) -> NoteBank:
    "Every pitch of each part's range at each of its velocities, as long as its longest note."
    recorded = []
    for name, notes in parts.items():
        low, high = int(notes[:, 2].min()), int(notes[:, 2].max())
        longest = float(np.ceil((notes[:, 1] - notes[:, 0]).max() + 0.2))
        velocities = tuple(sorted({int(v) for v in notes[:, 3]}))
        recorded += record_soundfont(soundfont, {name: [PROGRAMS[name]]}, pitches={name: (low, high)}, step=1,
                                     velocities=velocities, seconds=longest, progress=False).notes()
    return NoteBank.from_notes(recorded, RATE)


def what_is_left(bank: NoteBank, name: str, synthesizer: Synthesizer) -> tuple[float, float]:
    "Error in dB below single notes of half a second, every recorded one: while the key is held, and after."
    rows = bank._rows[name, bank.of(name)[0]]
    let_go = 64 * round(0.5 * RATE / 64)
    energy = np.zeros(3)
    for pitch, velocity in zip(bank.table["pitch"][rows], bank.table["velocity"][rows]):
        exact = synthesizer.render([Note(0, 0.5, int(pitch), int(velocity), PROGRAMS[name])], tail=0.5).mean(0)
        error = exact - render(bank, np.array([[0, 0.5, pitch, velocity]]), name, align=64, seconds=1.0)[:len(exact)]
        energy += [np.square(exact).sum(), np.square(error[:let_go]).sum(), np.square(error[let_go:]).sum()]
    return tuple(10 * np.log10(energy[1:] / energy[0]))


def measure(parts: dict[str, np.ndarray], soundfont, repeats: int) -> tuple[list[dict], dict]:
    "A row of figures for each part and one for all, and what was said on the way."
    bank, recording = cpu_time(record, parts, soundfont)
    rows, total = [], np.zeros(3)
    rng = np.random.default_rng(0)
    with Synthesizer(soundfont) as synthesizer:
        for name, notes in parts.items():
            score = [Note(on, off, int(pitch), int(velocity), PROGRAMS[name]) for on, off, pitch, velocity in notes]
            cents = rng.normal(0, 5, len(notes))
            synthesizer.render(score[:1])  # programs are loaded at the first note
            times = []
            for _ in range(repeats):
                exact, exact_s = cpu_time(lambda: synthesizer.render(score).mean(0))
                length = len(exact) / RATE
                fast, bank_s = cpu_time(lambda: render(bank, notes, name, align=64, seconds=length))
                _, detuned_s = cpu_time(lambda: render(bank, notes, name, seconds=length, detune=cents))
                times.append((exact_s, bank_s, detuned_s))
            times = np.median(times, 0)
            total += times
            held, after = what_is_left(bank, name, synthesizer)
            rows.append(dict(part=name, notes=len(notes), seconds=round(length, 1),
                             fluidsynth_x=round(length / times[0]), notebank_x=round(length / times[1]),
                             notebank_detuned_x=round(length / times[2]), snr_db=round(snr_db(exact, fast), 1),
                             held_db=round(held, 1), released_db=round(after, 1)))
    length = max(row["seconds"] for row in rows)
    rows.append(dict(part="all three", notes=sum(row["notes"] for row in rows), seconds=length,
                     fluidsynth_x=round(length / total[0]), notebank_x=round(length / total[1]),
                     notebank_detuned_x=round(length / total[2]), snr_db="", held_db="", released_db=""))
    return rows, dict(bank=repr(bank), recording_seconds=round(recording, 1))


def table(rows: list[dict], about: dict) -> str:
    titles = dict(part="part", notes="notes", seconds="s", fluidsynth_x="FluidSynth, x real time",
                  notebank_x="note bank, x real time",
                  notebank_detuned_x="each note detuned, x real time", snr_db="SNR, dB", held_db="error while held, dB",
                  released_db="error after release, dB")
    lines = ["| " + " | ".join(titles.values()) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    lines += ["| " + " | ".join(str(row[key]) for key in titles) + " |" for row in rows]
    return ("\n".join(lines) + "\n\n" + "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in about.items())
            + "\n")


def main():
    parser = arguments(__doc__)
    parser.add_argument("--soundfont", default=None, help="a .sf2 or .sf3; TimGM6mb when left out")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", help="write OUT.csv and OUT.md")
    given = parser.parse_args()
    piece = PieceBank.from_music21([work for work in CLASSICAL_WORKS if "Lindenbaum" in work.title], progress=False)[0]
    parts = {name: part.notes.astype(np.float64) for name, part in zip(PROGRAMS, piece.parts, strict=True)}
    soundfont = given.soundfont or default_soundfont()
    rows, details = measure(parts, soundfont, given.repeats)
    about = dict(piece=f"{piece.composer}, {piece.work}", soundfont=Path(soundfont).name, sample_rate=f"{RATE} Hz",
                 repeats=given.repeats,
                 processor=f"{processor()}, one thread", **details)
    print(table(rows, about))
    if not given.out: return
    out = Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_text(out.with_suffix(".md"), f"# Note bank and FluidSynth\n\n{table(rows, about)}{REMARKS}")


REMARKS = """
- FluidSynth plays in stereo, dry, and is opened once, outside the measured time; the note bank is mono.
- *Each note detuned* is what training does: no recording is used as it is, every one is read at its own speed.
- What is left of the difference: while a key is held, the rounding of the recordings to 16 bits, and that a \
FluidSynth kept
  open does not repeat a note to the last bit (the piano). After it is let go, the bank lays a straight line in dB \
over the
  held recording, where the soundfont also changes the tone; most on the guitar. `nbs/reference/sound/notebank.ipynb` \
shows it
  note by note.

Made by `OMP_NUM_THREADS=1 python benchmarks/notebank_speed.py --out benchmarks/results/notebank_speed`.
"""

if __name__ == "__main__": main()
