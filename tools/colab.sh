#!/usr/bin/env bash
# What the first cell of a chapter runs on Colab, in an empty folder: the package with what the chapters need, FluidSynth's
# library, and the results, examples and scripts that they use, in instsep/. Once there, it is not fetched again.
# INSTSEP_REPOSITORY names another repository; pip's own variables (PIP_FIND_LINKS, ...) another index.
set -euo pipefail
repository=${INSTSEP_REPOSITORY:-https://github.com/instsep/instsep}
if [ ! -d instsep/nbs/results ]; then
  git clone --quiet --depth 1 --filter=blob:none --sparse "$repository" instsep
  git -C instsep sparse-checkout set examples nbs/results nbs/media benchmarks tools
fi
version=$(sed -n 's/^version = //p' instsep/settings.ini)
python3 -m pip install --quiet "instsep[course]==$version" ||
  python3 -m pip install --quiet "instsep[course] @ git+$repository"
if ! ldconfig -p | grep libfluidsynth >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends libfluidsynth3 ffmpeg >/dev/null
fi
python3 -c "import instsep; print('instsep', instsep.__version__, 'is ready')"
