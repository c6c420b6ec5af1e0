"""What work on many recordings costs beside the networks: processor seconds to begin a process, for a job on a
cluster, to render mixtures, and bytes on the disk.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --pieces data/pieces.npz --bank data/bank.safetensors

Goes with separator_speed.py and transcription.py, which measure the networks; nbs/reference/scale.ipynb computes a cost
model from all three. Processor times do not depend on how busy the machine is. Results go to
benchmarks/results/scale.json and .md.
"""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RESULTS, arguments, cpu_time, processor, write_json, write_text

CLIP = Path(__file__).parents[1] / "examples/trio.flac"


def of_children(command) -> float:
    "Processor seconds of a command and what it begins."
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def beginnings() -> dict[str, float]:
    "A process that is ready to work, its model loaded."
    ready = dict(
        separate="from instsep.separator import Separator; Separator.from_pretrained()",
        transcribe="from instsep.files.transcription import load_transcriber; load_transcriber()")
    return {name: round(of_children([sys.executable, "-c", code]), 2) for name, code in ready.items()}


def job(number): return number


def on_a_cluster(jobs=500) -> float:
    "Processor seconds of a job that does nothing, in the command, the scheduler and two workers."
    from distributed import LocalCluster
    from instsep.workers import run_jobs
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    with LocalCluster(**options, processes=False) as cluster:
        list(run_jobs(job, range(10), cluster=cluster.scheduler_address))
        return cpu_time(lambda: list(run_jobs(job, range(jobs), cluster=cluster.scheduler_address)))[1] / jobs


def rendering(pieces, bank, folder, count=30, seconds=4.0) -> dict[str, float]:
    "Of mixtures of trios with rooms and noise, written as FLAC, for a second of sound."
    from instsep.mixtures import Mixtures, balanced, bank_player, render_dataset
    from instsep.music.pieces import PieceBank
    from instsep.sound.notebank import NoteBank
    notes = NoteBank.load(bank)
    data = Mixtures(PieceBank.load(pieces).split()["train"], bank_player(notes), balanced(notes), seconds=seconds,
                    sample_rate=notes.sample_rate)
    data.item(0)
    made = cpu_time(lambda: [data.item(k) for k in range(count)])[1]
    written = cpu_time(lambda: render_dataset(data, folder, range(count), progress=False))[1]
    size = sum(path.stat().st_size for path in Path(folder).rglob("*.flac"))
    return dict(made=round(made / count / seconds, 4), written=round(written / count / seconds, 4),
                mb_per_hour=round(size / count / seconds * 3600 / 1e6))


def sizes(folder) -> dict[str, int]:
    "Megabytes of stems for an hour of stereo at 44.1 kHz, and their seconds."
    from instsep.files.separation import separate_file
    from instsep.separator import Separator
    from instsep.sound.audio import info
    separator, seconds, found = Separator.from_pretrained("trio"), info(CLIP).seconds, {}
    for ext in ("wav", "flac", "mp3"):
        done = separate_file(separator, CLIP, folder / ext, ext=ext)
        channels = info(CLIP).channels
        size = sum(path.stat().st_size for path in done.files.values()) * 2 / channels
        found[ext] = round(size / seconds * 3600 / 1e6)
    return found


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", required=True)
    parser.add_argument("--bank", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = dict(
            command="python benchmarks/scale.py", processor=processor(family=True), threads=1,
            date=time.strftime("%Y-%m-%d"), begin_cpu_s=beginnings(), cluster_job_cpu_s=round(on_a_cluster(), 4),
            render_cpu_s_per_s=rendering(options.pieces, options.bank, Path(place) / "data"),
            stems_mb_per_hour=sizes(Path(place)))
    write_json(RESULTS / "scale.json", result)
    begin, render = result["begin_cpu_s"], result["render_cpu_s_per_s"]
    rows = [("begin a process of separate", f"{begin['separate']} CPU s"),
            ("begin a process of transcribe", f"{begin['transcribe']} CPU s"),
            ("a job on a cluster, without its work", f"{1000 * result['cluster_job_cpu_s']:.1f} CPU ms"),
            ("a second of a mixture, made", f"{1000 * render['made']:.1f} CPU ms"),
            ("a second of a mixture, made and written", f"{1000 * render['written']:.1f} CPU ms"),
            ("an hour of mixtures and stems, FLAC, mono", f"{render['mb_per_hour']} MB"),
            *((f"four stems of an hour, {ext}, stereo", f"{size} MB") for ext, size in
              result["stems_mb_per_hour"].items())]
    lines = [f"| {name} | {value} |" for name, value in rows]
    write_text(RESULTS / "scale.md", "\n".join([
        "# What scale costs", "", f"`{result['command']}`, one thread of {result['processor']}.", "", "| what | cost |",
        "| --- | --- |", *lines, ""]))


if __name__ == "__main__": main()
