"""What separation costs: processor seconds per second of 44.1 kHz stereo audio and peak memory, one thread, all in
one run.

    OMP_NUM_THREADS=1 python benchmarks/separator_speed.py

instsep (the default model for 30 s, 5 minutes and an hour, and `trio`, the lighter one) from disk to disk, as
`instsep separate --no-refine` works; the rivals, with weights of their published sizes drawn at random (speed does not
depend on the values), in memory for 30 s, cut as their authors cut: Open-Unmix (`umxhq`: four networks and a Wiener
filter), HDemucs (torchaudio's `hdemucs_high`) and HTDemucs (`htdemucs`). A rival that is not installed is left out
with a line (`pip install --no-deps openunmix demucs julius einops dora-search`). Every figure comes from a process
of its own. Results go to benchmarks/results/separator_speed.json and .md.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import RESULTS, arguments, cpu_time, processor, write_json, write_text

RATE = 44100
LENGTHS = {"30 s": 30, "5 min": 300, "1 h": 3600}
RIVALS = ("Open-Unmix", "HDemucs", "HTDemucs")
LIGHTER = "trio"


def write_noise(path, seconds):
    "Pink-ish stereo noise with a slow pulse, written block by block."
    from instsep.sound.audio import AudioWriter
    rng = np.random.default_rng(0)
    with AudioWriter(path, RATE, 2) as file:
        for second in range(seconds):
            block = np.cumsum(rng.normal(0, 0.01, (2, RATE)), 1)
            block -= np.linspace(0, 1, RATE) * block[:, -1:]                     # begins and ends at zero
            file.write((0.3 * block / np.abs(block).max() * (1 + second % 3) / 3).astype(np.float32))


def ours(seconds, folder, model):
    "CPU seconds of a warm model."
    from instsep.files.separation import separate_file
    from instsep.separator import Separator
    write_noise(folder / "in.wav", seconds)
    write_noise(folder / "warm.wav", 5)
    separator = Separator.from_pretrained(model) if model else Separator.from_pretrained()
    separate_file(separator, folder / "warm.wav", folder / "warm", progress=False)
    return cpu_time(separate_file, separator, folder / "in.wav", folder / "out")[1]


def rival(name, seconds):
    "CPU seconds for noise in memory, after a warm-up."
    import torch
    torch.manual_seed(0)
    mixture = 0.1 * torch.randn(1, 2, seconds * RATE)
    if name == "Open-Unmix":
        from openunmix.model import OpenUnmix, Separator
        targets = {t: OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=512, max_bin=1487)
                   for t in ("vocals", "drums", "bass", "other")}
        network = Separator(targets, niter=1, residual=False, n_fft=4096, n_hop=1024, nb_channels=2, sample_rate=RATE)
        run = network
    elif name == "HDemucs":
        from torchaudio.models import hdemucs_high
        network = hdemucs_high(["drums", "bass", "other", "vocals"])
        run = lambda x: [network(x[..., k:k + 10 * RATE]) for k in range(0, x.shape[-1], 10 * RATE)]
    else:
        from demucs.apply import apply_model
        from demucs.htdemucs import HTDemucs
        network = HTDemucs(["drums", "bass", "other", "vocals"])
        run = lambda x: apply_model(network, x, shifts=0, split=True, overlap=0.25)
    network.eval()
    with torch.inference_mode():
        run(mixture[..., :10 * RATE])
        return cpu_time(run, mixture)[1]


def measure(name, label, model):
    "In a process of its own: CPU s per s of audio and peak memory in MB."
    command = [sys.executable, __file__, "--one", name, label, *(["--model", model] if model else [])]
    done = subprocess.run(command, capture_output=True, text=True,
                          env=os.environ | dict(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"))
    if done.returncode:
        print(f"{name}: left out ({done.stderr.strip().splitlines()[-1][:120]})")
        return None
    row = dict(system=name, audio=label, **json.loads(done.stdout.splitlines()[-1]))
    print(f"{name}, {label}: {row['cpu_s_per_s']:.3f} CPU s per s, {row['peak_mb']:.0f} MB", flush=True)
    return row


def one(name, label, model):
    "What `measure` starts."
    import torch
    torch.set_num_threads(1)
    seconds = LENGTHS[label]
    if name.startswith("instsep"):
        with tempfile.TemporaryDirectory() as folder: cpu = ours(seconds, Path(folder), model)
    else: cpu = rival(name, seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(cpu_s_per_s=round(cpu / seconds, 4), peak_mb=round(peak))))


def main():
    parser = arguments(__doc__)
    parser.add_argument("--model", default=None, help="of ours; the default one when left out")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--lengths", nargs="*", default=list(LENGTHS), choices=list(LENGTHS), help="of ours")
    args = parser.parse_args()
    if args.one: return one(*args.one, args.model)
    from instsep.metrics import format_table
    from instsep.inference.registry import DEFAULT_MODEL
    rows = [measure("instsep", label, args.model) for label in args.lengths]
    if (args.model or DEFAULT_MODEL) != LIGHTER: rows.append(measure(f"instsep, {LIGHTER}", args.lengths[0], LIGHTER))
    rows += [measure(name, "30 s", args.model) for name in RIVALS]
    rows = [row for row in rows if row]
    base = rows[0]["cpu_s_per_s"]
    for row in rows: row["times instsep"] = round(row["cpu_s_per_s"] / base, 1)
    import torch
    log = dict(command="python benchmarks/separator_speed.py", model=args.model or DEFAULT_MODEL,
               processor=processor(family=True),
               torch=torch.__version__, threads=1, load_average=os.getloadavg(), rows=rows)
    write_json(RESULTS / "separator_speed.json", log)
    table = format_table([{"system": r["system"], "audio": r["audio"], "CPU s per s": f"{r['cpu_s_per_s']:.3f}",
                           "times instsep": f"{r['times instsep']:.1f}", "peak MB": f"{r['peak_mb']}"} for r in rows])
    text = (f"# What separation costs\n\n`{log['command']}`, one thread of {log['processor']}, torch {log['torch']}. "
            f"CPU seconds per second of 44.1 kHz stereo audio.\n\n{table}\n")
    write_text(RESULTS / "separator_speed.md", text)
    print(text)


if __name__ == "__main__": main()
