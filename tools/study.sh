#!/usr/bin/env bash
# What a chapter runs when its flag TRAIN is set, from nbs/: a benchmark or a command that trains, on a piece bank and a
# small note bank of its own. These are made once, in data/study/, in four minutes of a core, from the soundfont FluidR3_GM
# (Debian's and Ubuntu's fluid-soundfont-gm).
#   bash ../tools/study.sh python3 ../benchmarks/paper_scale.py --work ../data/study --out ../data/study --hours 0.3
#   bash ../tools/study.sh instsep train transcriber --minutes 3 -o ../data/study/notes
set -euo pipefail
font=/usr/share/sounds/sf2/FluidR3_GM.sf2
if [ ! -f "$font" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "study.sh: $font is not there; install it: sudo apt-get install fluid-soundfont-gm" >&2
    exit 2
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends fluid-soundfont-gm >/dev/null
fi
study=../data/study
mkdir -p "$study"
[ -f "$study/pieces.npz" ] || instsep pieces -o "$study/pieces.npz"
[ -f "$study/bank.safetensors" ] || instsep notebank -o "$study/bank.safetensors" --soundfont "$font" --step 6 --velocities 80 \
  --instruments clarinet,guitar,piano,flute,violin
exec "$@" --bank "$study/bank.safetensors" --pieces "$study/pieces.npz"
