#!/usr/bin/env python3
"""Join recordings of every container with every other, and look whether a sound is passed over without a word.

    python tools/joins.py

ffmpeg writes two tones into each container that it can write; each file of the first is followed by each of the second
(`cat a.flac b.mp3 > both`), and read. Right is all of the sound, ending in the second tone, or an error. Then files
that are right, and may look joined, must be read: MP3 in an MP4, AC-3 in a Matroska; silence, noise and a square wave,
minutes long, in each container. Exit code 1 if there is a fault. Takes some minutes.
"""
import subprocess
import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from instsep.core import InstsepError
from instsep.sound.audio import mono_blocks

RATE, A, B = 22050, 440, 660  # Hz
CONTAINERS = {"wav": "", "rf64.wav": "-rf64 always", "aiff": "", "au": "", "caf": "", "w64": "", "voc": "", "flac": "",
              "wv": "", "tta": "", "ogg": "-c:a libvorbis", "opus": "", "spx": "", "mp3": "", "mp2": "", "aac": "",
              "ac3": "", "ts": "-c:a mp2", "m4a": "-c:a aac", "mp4": "-c:a aac", "mov": "-c:a aac",
              "webm": "-c:a libopus", "mka": "-c:a libvorbis", "wma": ""}
RIGHT = {"mp3.mp4": "-c:a mp3", "ac3.mp4": "-c:a ac3", "parts.mp4": "-movflags frag_keyframe+empty_moov",
         "mp3.mkv": "-c:a mp3", "ac3.mkv": "-c:a ac3", "flac.mkv": "-c:a flac", "live.webm": "-c:a libopus -live 1",
         "ac3.ts": "-c:a ac3", "aac.ts": "-c:a aac", "mp3.avi": "-c:a mp3", "mp3.wav": "-c:a mp3",
         "ac3.wav": "-c:a ac3", "mp3.asf": "-c:a mp3", "mp3.flv": "-c:a mp3", "flac.ogg": "-c:a flac",
         "low.mp3": "-ar 8000 -b:a 8k"}


def write(sound: Path, place: Path, options: str) -> bool:
    "Whether this ffmpeg can."
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(sound), *options.split(), str(place)]
    return not subprocess.run(command, capture_output=True).returncode and place.stat().st_size > 0


def read(path: Path) -> np.ndarray:  # (samples,) at `RATE`
    return np.concatenate(list(mono_blocks(path, None, RATE)[0]))


def pitch(sound: np.ndarray) -> float:  # Hz
    "Of the strongest partial."
    return float(np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))) * RATE / len(sound))


def last_in(sounds: dict) -> str:
    "What is at fault with what was read of two tones; nothing if both are there."
    found, whole = sounds["both"], len(sounds["a"]) + len(sounds["b"])
    if len(found) < whole - 0.15 * RATE: return f"{len(found) / RATE:.2f} of {whole / RATE:.2f} s are read"
    heard = pitch(found[-RATE:-RATE // 5])
    return "" if abs(heard - B) < 5 else f"{heard:.0f} Hz instead of {B} at its end"


def main() -> int:
    warnings.simplefilter("ignore")
    faults = refused = 0
    time, random = np.arange(180 * RATE) / RATE, np.random.default_rng(0)
    sounds = dict(a=0.3 * np.sin(2 * np.pi * A * time[:2 * RATE]), b=0.3 * np.sin(2 * np.pi * B * time[:3 * RATE // 2]),
                  silence=0 * time, noise=random.uniform(-0.5, 0.5, len(time)),
                  square=np.sign(np.arange(len(time)) % 47 - 23) / 3)
    with tempfile.TemporaryDirectory() as folder_:
        folder = Path(folder_)
        for name, sound in sounds.items(): soundfile.write(folder / f"{name}.source.wav", sound, RATE)
        made = [kind for kind, options in CONTAINERS.items()
                if all(write(folder / f"{name}.source.wav", folder / f"{name}.{kind}", options) for name in "ab")]
        alone = {(name, kind): read(folder / f"{name}.{kind}") for name in "ab" for kind in made}
        for first, second in product(made, made):
            both = folder / f"both.{first}"
            both.write_bytes((folder / f"a.{first}").read_bytes() + (folder / f"b.{second}").read_bytes())
            try: fault = last_in(dict(a=alone["a", first], b=alone["b", second], both=read(both)))
            except InstsepError: refused += 1
            else:
                if fault: print(f"{first} + {second}: {fault}, without a word")
                faults += bool(fault)
        right = [(name, "a", options) for name, options in RIGHT.items()]
        right += [(f"{name}.{kind}", name, CONTAINERS[kind]) for name in sounds if len(name) > 1 for kind in made]
        right = [name for name, source, options in right
                 if write(folder / f"{source}.source.wav", folder / name, options)]
        for name in right:
            try: read(folder / name)
            except InstsepError as error:
                faults += 1
                print(f"{name}, which is right: {error}")
    print(f"{len(made)} containers, {len(made) ** 2} pairs: {refused} refused, {faults} faults; "
          f"{len(right)} right ones")
    return bool(faults)


if __name__ == "__main__": sys.exit(main())
