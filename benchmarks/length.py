"""Memory and processor time of `instsep transcribe` and `instsep separate` for long recordings, and how memory goes
on the way.

    OMP_NUM_THREADS=1 python benchmarks/length.py --hours 3 transcribe separate "separate --no-refine"

The recording is a WAV in stereo, 44.1 kHz: the reference recordings, one after the other, again and again. Each command
runs in a process of its own; how much of memory that holds (its resident set) is looked at every second. A row has the
greatest amounts in the first and the last quarter of its processor time, and the greatest of all. Rows of other lengths
stay in benchmarks/results/length.json and .md.
"""
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RECORDINGS, RESULTS, arguments, processor, read_json, write_json, write_text

RATE = 44100
COMMAND = "import sys; from instsep.cli import main; sys.exit(main())"


def write_long(path, recordings, seconds):
    "The mixtures of all reference recordings until the file is long enough."
    import numpy as np
    from instsep.sound.audio import AudioWriter, load
    places = sorted(Path(recordings).glob("*/mixture.flac"))
    parts = [load(place, sample_rate=RATE, downmix=True)[0] for place in places]
    parts = [np.concatenate([part, part]) if len(part) == 1 else part for part in parts]
    missing = round(seconds * RATE)
    with AudioWriter(path, RATE, 2) as file:
        while missing:
            for part in parts:
                file.write(part[:, :missing])
                missing -= min(missing, part.shape[1])


def resident_mb(pid):  # of a process; 0 when it is gone
    try: text = Path(f"/proc/{pid}/status").read_text()
    except OSError: return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS")), 0.0)


def cpu_seconds(pid):
    "Of another process; Linux has a clock for each."
    return time.clock_gettime((~pid << 3) | 2)


def watch(command, log):
    "A command to its end: its processor seconds, and (processor second, MB) now and then."
    before, trace = resource.getrusage(resource.RUSAGE_CHILDREN), []
    process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | dict(OMP_NUM_THREADS="1"))
    while process.poll() is None:
        try: trace.append((cpu_seconds(process.pid), resident_mb(process.pid)))
        except OSError: break
        if len(trace) % 60 == 0: print(f"{trace[-1][0]:.0f} CPU s, {trace[-1][1]:.0f} MB", flush=True)
        time.sleep(1)
    if process.wait(): raise SystemExit(f"{command}: exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, trace


def measure(words, path, seconds, folder):
    "A row."
    name, *options = shlex.split(words)
    cpu, trace = watch([sys.executable, "-c", COMMAND, name, str(path), "-o", f"{folder}/out", "-d", "cpu", *options],
                       subprocess.DEVNULL)
    end = trace[-1][0]
    def peak(since, until): return round(max((mb for at, mb in trace if since * end <= at <= until * end), default=0))
    return {"command": f"instsep {words}", "hours": round(seconds / 3600, 3), "CPU s": round(cpu),
            "CPU s per s": round(cpu / seconds, 4), "MB, first quarter": peak(0.02, 0.25),
            "MB, last quarter": peak(0.75, 1), "MB, peak": peak(0, 1)}


def shown(row): return {"CPU s per s": f"{row['CPU s per s']:.3f}"}


def main():
    parser = arguments(__doc__)
    parser.add_argument("commands", nargs="*", default=["transcribe", "separate", "separate --no-refine"])
    parser.add_argument("--recordings", default=RECORDINGS)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--folder", help="for the recording and the stems, some 10 GB; a temporary one")
    args = parser.parse_args()
    from instsep.metrics import format_table
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_long(path := Path(folder) / "long.wav", args.recordings, seconds := 3600 * args.hours)
        for words in args.commands:
            row = measure(words, path, seconds, folder)
            print(row, flush=True)
            log = read_json(RESULTS / "length.json", dict(rows=[]))
            rows = [old for old in log["rows"] if (old["command"], old["hours"]) != (row["command"], row["hours"])]
            rows = sorted([*rows, row], key=lambda row: (row["command"], row["hours"]))
            log = dict(command="python benchmarks/length.py", processor=processor(family=True), threads=1, rows=rows)
            write_json(RESULTS / "length.json", log)
            write_text(RESULTS / "length.md", f"# Long recordings\n\n`{log['command']}`, one thread of "
                       f"{log['processor']}; reference recordings one after the other, stereo, 44.1 kHz. MB: resident "
                       "memory, at most. A busy processor makes CPU seconds up to half as much again.\n\n"
                       f"{format_table([row | shown(row) for row in rows])}\n")


if __name__ == "__main__": main()
