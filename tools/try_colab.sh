#!/usr/bin/env bash
# Runs the chapters as Colab gets them: in an empty folder with nothing but the notebook, the wheel on an index of its own,
# and what tools/colab.sh fetches. With names, only these.
#   bash tools/try_colab.sh /tmp/colab 03_separator 04_mt3
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -e "$1" ] && [ ! -f "$1/.try_colab" ]; then echo "try_colab.sh: $1 is there already; name a new folder" >&2; exit 2; fi
mkdir -p "$1" && cd "$1" && shift
touch .try_colab  # a later run may empty this folder
rm -rf wheels instsep
[ -d .venv ] || python3 -m venv .venv
. .venv/bin/activate
python3 -m pip uninstall --quiet --yes instsep
python3 -m pip install --quiet build
python3 -m build --wheel --outdir wheels "$root" >/dev/null
PIP_FIND_LINKS=$PWD/wheels INSTSEP_REPOSITORY=file://$root bash "$root/tools/colab.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
cd instsep/nbs  # as the first cell of a chapter does
[ $# -gt 0 ] || set -- $(cd "$root/nbs" && ls 0*.ipynb)
for chapter; do
  start=$SECONDS
  cp "$root/nbs/${chapter%.ipynb}.ipynb" chapter.ipynb
  exec_nb chapter.ipynb --dest run.ipynb --exc_stop
  echo "${chapter%.ipynb}: ran in $((SECONDS - start)) s"
done
