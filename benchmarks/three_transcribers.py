"""basic-pitch on the mixtures of chapter 5, for the comparison of three transcribers there.

    OMP_NUM_THREADS=1 python benchmarks/three_transcribers.py --basic-pitch ../basic-pitch/bin/python

basic-pitch needs an environment of its own (how to make it: transcription.py). The other two transcribers of the
comparison come with the package, and the chapter runs them itself. Writes nbs/results/basic_pitch_notes.json: for each
mixture its number, its kind, how many true notes it has, and the notes found, as onset s, offset s, pitch, velocity.
"""
import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from common import BASIC_PITCH, LOGS, arguments, processor, run_elsewhere, write_json
from instsep.mixtures import INSTRUMENTS, TRIO, Gain, Mixtures, soundfont_player
from instsep.music.notes import without_overlaps
from instsep.music.pieces import CLASSICAL_WORKS, PieceBank
from instsep.sound.audio import save
from instsep.sound.soundfont import default_soundfont

RATE, SECONDS, PER_KIND, KINDS = 22050, 6.0, 8, ("unrelated", "parts", "unison", "octaves")  # as in the chapter
HELD_OUT = ("String quartet K. 80", "Maple leaf rag", "Cavalcando", "Lumi miei, cari lumi", "Chorale BWV 36.8",
            "Chorale BWV 8.6", "Chorale BWV 245.15", "Gloria Ad ongni vento")


def chapter_mixtures() -> Mixtures:
    "The mixtures of chapter 5."
    pieces = list(PieceBank.from_music21([work for work in CLASSICAL_WORKS if work.title in HELD_OUT], progress=False))
    programs = {name: [str(program) for program in INSTRUMENTS[name].programs] for name in TRIO}
    return Mixtures(pieces, soundfont_player(default_soundfont(), RATE), programs, instruments=TRIO, sample_rate=RATE,
                    seconds=SECONDS, absent=0.0, augmentation=(Gain((-3, 3)),), seed=5)


def chosen(mixtures: Mixtures) -> list[int]:
    "The first few of each kind."
    found, index = {kind: [] for kind in KINDS}, 0
    while min(map(len, found.values())) < PER_KIND:
        kind = mixtures.score(index).kind
        if len(found[kind]) < PER_KIND: found[kind].append(index)
        index += 1
    return sorted(sum(found.values(), []))


def transcribe(python: str, waves: dict[int, np.ndarray]) -> dict[int, list]:
    "basic-pitch's notes of each mixture."
    with tempfile.TemporaryDirectory() as folder:
        paths = {index: str(Path(folder) / f"{index}.wav") for index in waves}
        for index, wave in waves.items(): save(paths[index], wave[None], RATE, subtype="FLOAT")
        found = run_elsewhere(python, BASIC_PITCH, paths.values(), "basic-pitch")
    return {index: [[round(on, 4), round(off, 4), int(pitch), int(np.clip(round(127 * loud), 1, 127))]
                    for on, off, pitch, loud in found[path]["notes"] if off > on] for index, path in paths.items()}


def main():
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--basic-pitch", metavar="PYTHON", required=True, help="of an environment with basic-pitch")
    args, mixtures = parser.parse_args(), chapter_mixtures()
    items = {index: mixtures.item(index) for index in chosen(mixtures)}
    notes = transcribe(args.basic_pitch, {index: stems[:3].sum(0) for index, (_, stems) in items.items()})
    rows = [dict(item=index, kind=score.kind, true_notes=len(without_overlaps(score.to_notes())), notes=notes[index])
            for index, (score, _) in items.items()]
    write_json(LOGS / "basic_pitch_notes.json", dict(
        command="OMP_NUM_THREADS=1 python benchmarks/three_transcribers.py --basic-pitch PYTHON", basic_pitch="0.4.0",
        instsep=version("instsep"), processor=processor(), soundfont=Path(default_soundfont()).stem, rows=rows),
        indent=None)


if __name__ == "__main__": main()
