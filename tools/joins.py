#!/usr/bin/env python3
"""Join recordings of every container with every other, and look whether a sound is passed over without a word.

    python tools/joins.py

ffmpeg writes two tones into each container that it can write; each file of the first is followed by each of the second
(`cat a.flac b.mp3 > both`), and read. Right is all of the sound, or an error. Then files that are right, and may look
joined (MP3 in an MP4, AC-3 in a Matroska), must be read. Exit code 1 if there is a fault. Takes two minutes.
"""
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import soundfile

from instsep.core import InstsepError
from instsep.sound.audio import mono_blocks

RATE = 22050
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


def seconds(path: Path) -> float:
    return sum(map(len, mono_blocks(path, None, RATE)[0])) / RATE


def main() -> int:
    warnings.simplefilter("ignore")
    faults = pairs = refused = 0
    with tempfile.TemporaryDirectory() as folder_:
        folder = Path(folder_)
        for name, hertz, length in (("a", 440, 2.0), ("b", 660, 1.5)):
            tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * length)) / RATE)
            soundfile.write(folder / f"{name}.source.wav", tone, RATE)
        made = [kind for kind, options in CONTAINERS.items()
                if all(write(folder / f"{name}.source.wav", folder / f"{name}.{kind}", options) for name in "ab")]
        alone = {(name, kind): seconds(folder / f"{name}.{kind}") for name in "ab" for kind in made}
        for first in made:
            for second in made:
                both, pairs = folder / f"both.{first}", pairs + 1
                both.write_bytes((folder / f"a.{first}").read_bytes() + (folder / f"b.{second}").read_bytes())
                whole = alone["a", first] + alone["b", second]
                try: found = seconds(both)
                except InstsepError: refused += 1
                else:
                    if found < whole - 0.15:
                        faults += 1
                        print(f"{first} + {second}: {found:.2f} of {whole:.2f} s are read, without a word")
        right = [name for name, options in RIGHT.items() if write(folder / "a.source.wav", folder / name, options)]
        for name in right:
            try: seconds(folder / name)
            except InstsepError as error:
                faults += 1
                print(f"{name}, which is right: {error}")
    print(f"{len(made)} containers, {pairs} pairs: {refused} refused, {faults} faults; {len(right)} right ones read")
    return bool(faults)


if __name__ == "__main__": sys.exit(main())
