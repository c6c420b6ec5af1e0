#!/usr/bin/env python3
"""Kill separating, transcribing, rendering and training at random moments, and compare with a run that was let alone.

    python tools/kills.py --kills 50 [separate transcribe render train]

A process that has imported everything begins each run as a copy of itself, so that two hundred runs cost a few minutes.
A moment is a share of the processor time that the whole run takes, which does not depend on how busy the machine is;
the signal is SIGKILL (kill -9). After each kill, all that has its final name must be whole: the bytes of the
undisturbed run, or, in training, a checkpoint that can be loaded. The next run goes on in the same folder and may be
killed, too; one that comes to its end must have made what the undisturbed run made. Inputs, networks and runs are tiny.
Linux only.
"""
import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np

COMMANDS = "separate", "transcribe", "render", "train"


def prepare(folder: Path) -> None:
    "Recordings, a network, pieces and notes."
    import torch
    from instsep.music.notes import Note, write_midi
    from instsep.music.pieces import PieceBank
    from instsep.separator import Separator, SeparatorConfig
    from instsep.sound.audio import load, save
    from instsep.sound.invent import invent_bank
    torch.manual_seed(0)
    network = SeparatorConfig(network="BandSplitRNN", options=dict(width=8, hidden=8, layers=1, head=8))
    Separator(network).save_pretrained(folder / "model")
    music, rate = load(Path(__file__).parent.parent / "examples/trio.flac")
    for k in range(4): save(folder / "songs" / f"{k}.wav", music[:, k * rate:k * rate + rate // 2], rate)
    for k in range(6):
        tune = [(0.4 * i, 0.4 * i + 0.35, 60 + (2 * i + k) % 12) for i in range(20)]
        notes = [Note(*note, 80, program) for note in tune for program in (0, 24, 71)]
        write_midi(notes, folder / "midi" / f"tune {k}.mid")
    PieceBank.from_folder(folder / "midi").save(folder / "pieces.npz")
    invent_bank(1, instruments=("clarinet", "guitar", "piano"), sample_rate=22050, progress=False).save(
        folder / "bank.safetensors")


def run_command(folder: Path, out: Path, command: str) -> int:
    "One of the commands, as a user gives it."
    from instsep.cli import main
    arguments = dict(
        separate=["separate", folder / "songs", "-n", folder / "model", "--flac", "-d", "cpu"],
        transcribe=["transcribe", folder / "songs", "--csv", "--report", "-d", "cpu"],
        render=["render", folder / "pieces.npz", folder / "bank.safetensors", "--count", "6", "--seconds", "1"])
    return main([str(argument) for argument in [*arguments[command], "-o", out]])


def run_training(folder: Path, out: Path) -> int:
    "Twelve steps of a tiny separator, with a checkpoint every second step and a validation every fourth."
    import torch
    from torch.utils.data import Dataset
    from instsep.separator import SeparatorConfig
    from instsep.training.separator import SeparatorModule, TrainConfig, fit

    class Noise(Dataset):
        def __init__(self, length): self.length = length
        def __len__(self): return self.length

        def __getitem__(self, index):
            stems = np.random.default_rng(index).standard_normal((3, 4096)).astype(np.float32)
            return dict(mixture=torch.from_numpy(stems.sum(0)), stems=torch.from_numpy(stems))

    torch.manual_seed(0)
    options = dict(used=64, hidden=8, layers=1)
    config = SeparatorConfig(instruments=("a", "b"), network="OpenUnmixBLSTM", options=options).at(22050)
    plan = TrainConfig(steps=12, batch=2, warmup=2, save_every=2, validate_every=4, workers=0, learning_rate=1e-2)
    module = fit(SeparatorModule(config, plan), Noise(10 ** 6), out, valid=[Noise(4)], progress=False,
                 accelerator="cpu")
    module.model.save_pretrained(out / "model")
    return 0 if module.global_step == 12 else 1


def cpu_seconds(pid: int) -> float:
    "Of another process; Linux has a clock for each."
    return time.clock_gettime((~pid << 3) | 2)


def begin(run, out: Path) -> int:
    "A copy of this process that does it; its number."
    sys.stdout.flush()
    pid = os.fork()
    if pid: return pid
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try: code = run(out=out)
        except BaseException as error:
            out.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{out}.error").write_text(repr(error))
            code = 3
    os._exit(code)


def let_run(run, out: Path) -> float:
    "Undisturbed; its processor seconds."
    pid, seconds = begin(run, out), 0.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: break
        seconds = cpu_seconds(pid)
        time.sleep(0.001)
    if status: raise SystemExit(f"an undisturbed run ended with {status}; {error_of(out)}")
    return seconds


def error_of(out: Path) -> str:
    path = Path(f"{out}.error")
    return path.read_text() if path.is_file() else ""


def run_and_kill(run, out: Path, seconds: float) -> int | None: # its exit code; None: it was killed
    pid = begin(run, out)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: return os.waitstatus_to_exitcode(status)
        if cpu_seconds(pid) >= seconds:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.0002)


def visible(folder: Path) -> dict[str, bytes]:
    "What has its final name."
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()
             and not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def damaged(out: Path, whole: dict[str, bytes], command: str) -> list[str]:
    "Files with their final name that are not whole."
    found = visible(out)
    if command != "train": return [name for name, data in found.items() if data != whole.get(name)]
    import io
    import torch
    bad = []
    for name, data in found.items():
        try:
            if name.endswith(".ckpt"): torch.load(io.BytesIO(data), weights_only=True)
            if name.endswith(".json"): json.loads(data)
        except Exception as error: bad.append(f"{name} ({error})")
    return bad


def result_of(found: dict[str, bytes], command: str) -> dict:
    """What has to be the same: everything; of training the weights, those of the optimizer, too. A log has seconds in
    it, and a validation that was due when the run was killed is not made up for."""
    if command != "train": return found
    import io
    import torch
    def as_bytes(value):
        if isinstance(value, dict): return {key: as_bytes(part) for key, part in value.items()}
        if isinstance(value, list): return [as_bytes(part) for part in value]
        return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
    state = torch.load(io.BytesIO(found["last.ckpt"]), weights_only=True)
    return dict(model=found["model/model.safetensors"], **{name: as_bytes(state[name]) for name in (
        "global_step", "state_dict", "optimizer_states", "lr_schedulers")})


def campaign(command: str, kills: int, folder: Path, seed: int = 0) -> dict:
    "So many kills of one command: what was seen."
    run = partial(run_training if command == "train" else partial(run_command, command=command), folder)
    seconds = let_run(run, folder / command / "whole")
    whole = visible(folder / command / "whole")
    right, rng, seen, number, fresh = result_of(whole, command), random.Random(seed), Counter(), 0, True
    while seen["kills"] < kills or not fresh:
        out = folder / command / str(number)
        last = seen["kills"] >= kills  # the last one is let alone
        code = run_and_kill(run, out, float("inf") if last else rng.uniform(0, 1.05) * seconds)
        fresh = code is not None
        if code:
            seen["errors"] += 1
            print(f"{command}: run {number} ended with {code}; {error_of(out)}", file=sys.stderr)
        if code is None:
            seen["kills"] += 1
            seen["kills with results there"] += bool(visible(out))
            bad = damaged(out, whole, command)
            seen["half-written"] += len(bad)
            for name in bad: print(f"{command}: run {number}: {name} is not whole", file=sys.stderr)
            continue
        seen["runs ended"] += 1
        if result_of(visible(out), command) != right:
            seen["unlike the undisturbed"] += 1
            found = result_of(visible(out), command)
            names = [name for name in {*found, *right} if found.get(name) != right.get(name)]
            print(f"{command}: run {number} made something else: {', '.join(names)}", file=sys.stderr)
        shutil.rmtree(out)
        number += 1
    return dict(command=command, cpu_seconds=round(seconds, 2), files=len(whole), **{name: seen[name] for name in (
        "kills", "kills with results there", "runs ended", "errors", "half-written", "unlike the undisturbed")})


def table(rows: list[dict]) -> str:
    "As Markdown."
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows])


def main() -> int: # 1: something was lost, half-written or otherwise
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the table, too")
    options = parser.parse_args()
    commands = options.commands or COMMANDS
    if unknown := set(commands) - set(COMMANDS): parser.error(f"{', '.join(sorted(unknown))}: no such command")
    import torch
    import lightning  # noqa: F401  (imported once, here)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if set(commands) - {"train"}: prepare(folder)
        rows = [campaign(command, options.kills, folder, options.seed) for command in commands]
    print(table(rows))
    if options.json: options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row[bad] for row in rows for bad in ("errors", "half-written", "unlike the undisturbed")))


if __name__ == "__main__": sys.exit(main())
