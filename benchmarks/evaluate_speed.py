"""How long `instsep evaluate` takes: a folder of 100 items, each of three stems (10 s, stereo, 44.1 kHz, WAV) and a
MIDI file.

    python benchmarks/evaluate_speed.py --items 100

The items are made on the spot in a temporary folder: noise for the stems, random notes for the MIDI files, the
estimates being the same with errors. Nothing about them is easier to score than music. The command is started as a
user would start it, so the time includes Python, the imports and the writing of the table, JSON and CSV; and once
more with the page of the five worst items. Results go to benchmarks/results/evaluate_speed.json and .md.
"""
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from instsep.sound.audio import save
from instsep.metrics import format_table
from instsep.music.notes import Note, write_midi
from common import RESULTS, arguments, processor, write_results

STEMS = ("clarinet", "guitar", "piano")


def some_notes(random, seconds, count):
    return [Note(float(onset), float(onset + length), int(pitch), int(velocity), int(program))
            for onset, length, pitch, velocity, program in
            zip(random.uniform(0, seconds - 1, count), random.uniform(0.1, 1, count), random.integers(40, 90, count),
                random.integers(30, 120, count), random.choice([0, 24, 71], count))]


def make(folder, items, seconds, rate=44100):
    "Write folder/truth and folder/found."
    random = np.random.default_rng(0)
    for item in range(items):
        stems = {name: 0.1 * random.standard_normal((2, int(seconds * rate)), dtype=np.float32) for name in STEMS}
        mixture = sum(stems.values())
        for name, stem in stems.items():
            save(folder / "truth" / f"{item:03d}" / f"{name}.wav", stem, rate, clip="clamp")
            save(folder / "found" / f"{item:03d}" / f"{name}.wav", 0.9 * stem + 0.1 * mixture, rate, clip="clamp")
        notes = some_notes(random, seconds, 100)
        estimated = [note for note in notes if random.random() < 0.8] + some_notes(random, seconds, 20)
        write_midi(notes, folder / "truth" / f"{item:03d}.mid")
        write_midi(estimated, folder / "found" / f"{item:03d}.mid")


def timed(folder, *options):
    command = [sys.executable, "-c", "import sys; from instsep.cli import main; sys.exit(main())", "evaluate",
               "--reference", folder / "truth",
               "--estimate", folder / "found", "--json", folder / "scores.json", "--csv", folder / "scores.csv",
               *options]
    def cpu(): return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    begun, used = time.perf_counter(), cpu()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return dict(command=" ".join(["evaluate --json --csv", *options[:1]]), wall_seconds=time.perf_counter() - begun,
                cpu_seconds=cpu() - used)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an item")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args.items, args.seconds)
        rows = [timed(folder), timed(folder, "--report", folder / "page.html")]
        page = (folder / "page.html").stat().st_size / 1e6
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = dict(items=args.items, stems=len(STEMS), item_seconds=args.seconds, processor=processor(), cores=cores,
                 python=platform.python_version(), page_megabytes=round(page, 1), results=rows)
    text = (f"# Speed of `instsep evaluate`\n\n`python benchmarks/evaluate_speed.py --items {args.items} --seconds "
            f"{args.seconds:g}`\n\n{args.items} items of {len(STEMS)} stereo stems and a MIDI file, {args.seconds:g} s "
            f"each, on {cores} core(s) of {processor()}, with Python's start (wall time depends on what else the "
            f"machine does); the page with five items in sound has {page:.1f} MB.\n\n{format_table(rows)}\n")
    write_results(Path(args.out) / "evaluate_speed", text, about)


if __name__ == "__main__": main()
