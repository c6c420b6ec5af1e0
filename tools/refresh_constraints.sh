#!/usr/bin/env bash
# Make constraints.txt anew: the newest versions that settings.ini allows, written down and tried by all of .ci/run,
# which installs exactly them. If anything fails, constraints.txt stays as it was: also where a version wants a newer Python
# 3.11 than Debian 12 has (then cap it in settings.ini). Needs Python 3.11, pip and git.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 -c 'import sys; sys.exit("constraints.txt is for Python 3.11" if sys.version_info[:2] != (3, 11) else 0)'
mkdir -p build
work=$(mktemp -d "$PWD/build/refresh.XXXXXX")
cp constraints.txt "$work/before.txt"
finish() { [ "${passed:-}" ] || cp "$work/before.txt" constraints.txt; rm -rf "$work"; rmdir build 2>/dev/null || true; }
trap finish EXIT
trap 'exit 130' INT TERM HUP

cp -r instsep setup.py settings.ini pyproject.toml README.md MANIFEST.in LICENSE "$work"  # installed from there: no trace here
python3 -m venv --without-pip "$work/venv"
(cd "$work" && python3 -m pip --python venv install --quiet pip -e '.[dev]')
"$work/venv/bin/python" -m pip check
{
  grep '^#' "$work/before.txt"
  # Without local versions such as +cu130, and without pip, which is whatever the machine has.
  "$work/venv/bin/python" -m pip freeze --all | sed -nE 's/^([A-Za-z0-9_.-]+==[^+ ]+)(\+.*)?$/\1/p' | grep -v '^pip==' | LC_ALL=C sort -f
} >constraints.txt
rm -rf "$work/venv"  # several gigabytes
diff "$work/before.txt" constraints.txt || true
bash .ci/run
passed=yes
echo "constraints.txt: $(grep -c == constraints.txt) versions that work together"
